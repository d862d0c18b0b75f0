/*
 * faults: what a program feels that maps and faults all the time.
 *
 * Maps 16 pages, writes to each, unmaps them, without pause. For each line of input it prints the
 * longest that this took since the line before, in nanoseconds, and how often it was done.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 16, BETWEEN_LOOKS = 64 };

static long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static long map_and_write(void)
{
	long begin = now_ns();
	char *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	for (long i = 0; i < PAGES; i++)
		p[i * PAGE] = 1;
	munmap(p, PAGES * PAGE);
	return now_ns() - begin;
}

int main(void)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	long worst = 0, times = 0;
	char line[16];

	puts("ready");
	fflush(stdout);
	for (;;) {
		for (int i = 0; i < BETWEEN_LOOKS; i++, times++) {
			long took = map_and_write();

			if (took > worst)
				worst = took;
		}
		if (poll(&input, 1, 0) != 1)
			continue;
		if (read(0, line, sizeof(line)) <= 0)
			return 0;
		printf("%ld %ld\n", worst, times);
		fflush(stdout);
		worst = times = 0;
	}
}
