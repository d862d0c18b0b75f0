/* The program that this project started with: it says hello and waits. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	puts("Hello, world!");
	fflush(stdout);
	pause();
	return 0;
}
