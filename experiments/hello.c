/* The report's first target: it says hello and waits. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	puts("Hello, world!");
	fflush(stdout);
	for (;;)
		pause();
}
