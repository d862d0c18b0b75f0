/* The report's first target: it says hello and does not end. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	puts("Hello, world!");
	fflush(stdout);
	for (;;)
		pause();
}
