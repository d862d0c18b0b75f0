/*
 * crowd COUNT [MIB]: a process with COUNT children that do nothing, all of which end with it. With MIB they
 * have mapped all of so much shared memory. Prints "ready" and waits.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { PAGE = 4096 };

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static void child(volatile const char *shared, size_t size, int done)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t at = 0; at < size; at += PAGE)
		(void)shared[at];
	close(done);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 0;
	size_t size = (argc > 2 ? (size_t)atol(argv[2]) : 0) << 20;
	char *shared = NULL, byte;
	int done[2];

	if (pipe(done))
		return fail("pipe");
	if (size) {
		shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (shared == MAP_FAILED)
			return fail("mmap");
		memset(shared, 1, size);
	}
	for (int i = 0; i < count; i++) {
		switch (fork()) {
		case -1:
			return fail("fork");
		case 0:
			close(done[0]);
			child(shared, size, done[1]);
		}
	}
	close(done[1]);
	if (read(done[0], &byte, 1)) /* until the last child has closed its end */
		return fail("read");
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}
