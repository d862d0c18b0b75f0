/*
 * mappings COUNT THREADS STEP: COUNT mappings of one page each, STEP pages apart, which are in turn
 * anonymous memory that is written, anonymous memory that is read, a private mapping of this program
 * and a shared mapping of a memfd. THREADS threads keep mapping, touching and unmapping 16 pages.
 * Prints "ready" and waits.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, KINDS = 4 };

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static void *map_and_unmap(void *unused)
{
	(void)unused;
	for (;;) {
		char *p = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			continue;
		memset(p, 1, 16 * PAGE);
		munmap(p, 16 * PAGE);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	long count = argc > 3 ? atol(argv[1]) : 0, threads = argc > 3 ? atol(argv[2]) : 0;
	size_t step = argc > 3 ? strtoul(argv[3], NULL, 10) * PAGE : 0;
	int program = open("/proc/self/exe", O_RDONLY), memory = memfd_create("mapped often", 0);
	char *at;

	if (argc < 4 || program < 0 || memory < 0 || ftruncate(memory, KINDS * PAGE))
		return fail("mappings COUNT THREADS STEP");
	at = mmap(NULL, count * step, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED || munmap(at, count * step))
		return fail("mmap");
	for (long i = 0; i < count; i++, at += step) {
		int kind = i % KINDS, fd = kind == 2 ? program : kind == 3 ? memory : -1;
		int prot = PROT_READ | (kind == 0 ? PROT_WRITE : 0);
		int flags = MAP_FIXED | (kind == 3 ? MAP_SHARED : MAP_PRIVATE) | (fd < 0 ? MAP_ANONYMOUS : 0);

		if (mmap(at, PAGE, prot, flags, fd, 0) == MAP_FAILED)
			return fail("mmap");
		if (kind == 0)
			*at = 1;
		else
			(void)*(volatile char *)at;
	}
	for (; threads; threads--) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, map_and_unmap, NULL))
			return fail("pthread_create");
	}
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}
