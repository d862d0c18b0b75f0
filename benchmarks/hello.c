/* The program the whole thing began with: it says hello and stays. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	puts("Hello, world!");
	fflush(stdout);
	pause();
	return 0;
}
