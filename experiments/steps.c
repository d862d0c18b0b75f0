/*
 * A process that changes one page at a time on command: each byte on standard input is a command,
 * and each completed one is answered by a dot. It uses no library memory meanwhile.
 *
 *   w  write the next page       r  read the next page, which was never written
 *   c  ask for the time, which the vdso answers from the vvar page
 *   d  from now on write a page every millisecond, and stop answering
 */
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 65536

int main(void)
{
	char *written = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile char *read_only = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t writes = 0, reads = 0;
	struct timespec now, pause = { 0, 1000000 };
	char command;

	/* With huge pages one write would add 512 pages. */
	if (madvise(written, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE) ||
	    madvise((char *)read_only, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE))
		return 1;
	while (read(0, &command, 1) == 1) {
		switch (command) {
		case 'w':
			written[writes++ * PAGE] = 1;
			break;
		case 'r':
			command = read_only[reads++ * PAGE];
			break;
		case 'c':
			clock_gettime(CLOCK_MONOTONIC, &now);
			break;
		case 'd':
			for (; writes < PAGES; writes++) {
				written[writes * PAGE] = 1;
				nanosleep(&pause, NULL);
			}
		}
		if (write(1, ".", 1) != 1)
			return 1;
	}
	return 0;
}
