/*
 * chunks COUNT: allocate COUNT chunks of 16 to 1000 bytes and free two of three, in an order that
 * scatters them. Prints "ready"; then, for each line of input, a number and a newline: for "info",
 * the milliseconds that malloc_info(3) took; for "busy", a thread begins to malloc and free every
 * 50 us; for "worst", the longest that it took from one to the next since it was last asked.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic double worst;

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e3 + at.tv_nsec / 1e6;
}

static void *allocate(void *unused)
{
	(void)unused;
	for (double last = now(), at;; last = at) {
		usleep(50);
		free(malloc(3000));
		at = now();
		if (at - last > worst)
			worst = at - last;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	void **blocks = calloc(count + 1, sizeof *blocks);
	uint64_t state = 88172645463325252u;
	char line[16], *text;
	pthread_t thread;
	size_t size;

	for (size_t i = 0; i < count; i++) {
		size = 16 + i * 7919 % 985;
		blocks[i] = memset(malloc(size), 1, size);
	}
	for (size_t i = count; i-- > 1;) {
		void *other = blocks[i];
		size_t j;

		state ^= state << 13, state ^= state >> 7, state ^= state << 17;
		j = state % (i + 1);
		blocks[i] = blocks[j];
		blocks[j] = other;
	}
	for (size_t i = 0; i < count; i++)
		if (i % 3)
			free(blocks[i]);
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		double begin = now();
		FILE *file;

		if (!strcmp(line, "busy\n") && pthread_create(&thread, NULL, allocate, NULL))
			return 1;
		if (!strcmp(line, "info\n")) {
			file = open_memstream(&text, &size);
			malloc_info(0, file);
			fclose(file);
			free(text);
		}
		printf("%f\n", strcmp(line, "worst\n") ? now() - begin : worst);
		fflush(stdout);
		worst = 0;
	}
	return 0;
}
