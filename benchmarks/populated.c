/*
 * populated anon|huge|forked|file MIB: that much memory, all of it present. Prints "ready" and waits.
 *
 * anon is anonymous memory in base pages, huge in huge ones; forked is the same, with a child that maps it too; file is
 * one shared file of 64 MiB, mapped repeatedly until MIB is reached: many pages that take little
 * memory. The kernel populates the pages, which is faster than a loop that touches them.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { FILE_MIB = 64 };

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int anon(size_t size, int pages)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return fail("mmap");
	madvise(p, size, pages);
	return madvise(p, size, MADV_POPULATE_WRITE) ? fail("populate") : 0;
}

static int forked(size_t size)
{
	if (anon(size, MADV_NOHUGEPAGE))
		return 1;
	switch (fork()) {
	case -1:
		return fail("fork");
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
	return 0;
}

static int file(size_t size)
{
	int fd = memfd_create("mapped often", 0);
	size_t part = (size_t)FILE_MIB << 20;

	if (fd < 0 || ftruncate(fd, part))
		return fail("memfd");
	for (size_t done = 0; done < size; done += part)
		if (mmap(NULL, part, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0) == MAP_FAILED)
			return fail("mmap");
	return 0;
}

int main(int argc, char **argv)
{
	size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) << 20 : 0;

	if (argc < 3)
		return 1;
	if (!strcmp(argv[1], "anon") ? anon(size, MADV_NOHUGEPAGE)
	    : !strcmp(argv[1], "huge") ? anon(size, MADV_HUGEPAGE)
	    : !strcmp(argv[1], "forked") ? forked(size) : file(size))
		return 1;
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}
