/* The process of walk-by-hand.md: five kinds of memory, each at an address that is easy to see. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB (1UL << 20)
#define GIB (1UL << 30)

static char *at(unsigned long addr, unsigned long size)
{
	void *p = mmap((void *)addr, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		_exit(1);
	}
	return p;
}

int main(void)
{
	/* One page with a word in it. */
	strcpy(at(0x123456789000, PAGE) + 0xabc, "hello");

	/* A huge page: one write, and the kernel maps 2 MiB. */
	char *huge = at(0x200000000000, 2 * MIB);
	madvise(huge, 2 * MIB, MADV_HUGEPAGE);
	huge[0] = 1;

	/* A page that goes to swap, if there is any. */
	char *swapped = at(0x300000000000, PAGE);
	swapped[0] = 1;
	madvise(swapped, PAGE, MADV_PAGEOUT);

	/* 4 GiB, of which one page is written, in the middle. */
	at(0x400000000000, 4 * GIB)[2 * GIB] = 1;

	/* A page that is read, and never written. */
	volatile char *zero = at(0x500000000000, PAGE);
	char c = *zero;

	puts("ready");
	fflush(stdout);
	return pause() + c;
}
