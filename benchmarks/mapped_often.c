/*
 * mapped_often MIB: one shared file of 64 MiB, mapped and present as often as makes up MIB.
 *
 * A process with many pages that takes little memory. Says "ready" and stays.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILE_MIB = 64 };

int main(int argc, char **argv)
{
	int fd = memfd_create("mapped often", 0);

	if (argc < 2 || fd < 0 || ftruncate(fd, FILE_MIB << 20))
		return 1;
	for (long mib = atol(argv[1]); mib > 0; mib -= FILE_MIB)
		if (mmap(NULL, FILE_MIB << 20, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0) == MAP_FAILED)
			return 1;
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}
