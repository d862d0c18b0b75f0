/* Memory on swap. The test harness has enabled a zram device. */
#include "zoo.h"

/*
 * Reclaim skips a page that is busy at that moment (in a CPU's batch, for example), so ask again
 * until none is left.
 */
void page_out(char *p, size_t pages)
{
	for (int i = 0; i < 1000; i++) {
		check(!madvise(p, pages * PAGE, MADV_PAGEOUT), "madvise(MADV_PAGEOUT)");
		if (!count_present(p, pages))
			return;
		usleep(1000);
	}
	errno = EBUSY;
	cannot("page everything out (is there swap?)");
}

static void swap_private(char **args)
{
	char *p = map(96, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 80, 1);
	page_out(p, 64);
	/* After a read the page is still on swap too, after a write it is not. */
	read_pages(p, 0, 16, 1);
	write_pages(p, 16, 24, 1);
	fact("private", p, 96, "anon", 40L, "swapped", 40L, "empty", 16L, NULL);
}

/*
 * Three processes share the slots: they fork after the page-out, because reclaim leaves shared pages
 * alone. child1 writes pages 0..16; child2 reads 40..48, which stay on swap for the others.
 */
static void swap_forked(char **args)
{
	char *p = map(80, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 64, 1);
	page_out(p, 64);
	if (!child()) {
		write_pages(p, 0, 16, 1);
		fact("child1", p, 80, "anon", 16L, "swapped", 48L, "empty", 16L, "slots_of_3", 40L,
		     "slots_of_2", 8L, NULL);
		done();
	}
	if (!child()) {
		read_pages(p, 40, 48, 1);
		fact("child2", p, 80, "anon", 8L, "swapped", 56L, "empty", 16L, "slots_of_3", 40L,
		     "slots_of_2", 16L, "swapcache", 8L, NULL);
		done();
	}
	gather(2);
	fact("parent", p, 80, "swapped", 64L, "empty", 16L, "slots_of_3", 40L, "slots_of_2", 24L,
	     NULL);
}

/* A swapped shmem page leaves no entry behind: smaps looks it up in the object. */
static void swap_shmem(char **args)
{
	int fd = memory_file("swapped", 96);
	char *p = map(96, MAP_SHARED, fd, 0), *q, *part;

	write_pages(p, 0, 64, 1);
	page_out(p, 64);
	write_pages(p, 0, 16, 1);
	fact("shared", p, 96, "shmem", 16L, "empty", 80L, "shmem_swapped", 48L, NULL);
	/* Private and writable: the kernel looks up every hole instead of taking the object's sum. */
	q = map(96, MAP_PRIVATE, fd, 0);
	write_pages(q, 0, 8, 1);
	fact("copy", q, 96, "anon", 8L, "empty", 88L, "shmem_swapped", 48L, NULL);
	/* Neither at the start of the object nor up to its end. */
	part = map(32, MAP_SHARED, fd, 40 * PAGE);
	fact("part", part, 32, "empty", 32L, "shmem_swapped", 24L, NULL);
}

/* Private copies of memfd pages on swap as well: swap entries next to swapped shmem pages. */
static void swap_mixed(char **args)
{
	int fd = memory_file("mixed", 64);
	char *p = map(64, MAP_SHARED, fd, 0), *q;

	write_pages(p, 0, 64, 1);
	page_out(p, 48);
	q = map(64, MAP_PRIVATE, fd, 0);
	write_pages(q, 48, 64, 1);
	page_out(q + 56 * PAGE, 8);
	fact("shared", p, 64, "shmem", 16L, "empty", 48L, "shmem_swapped", 48L, NULL);
	fact("copy", q, 64, "anon", 8L, "swapped", 8L, "empty", 48L, "shmem_swapped", 48L, NULL);
}

/*
 * Two huge pages of shared memory, each in one large swap entry. Up to 6.18 at least, smaps of
 * the private writable mapping adds the whole entry once for each of its pages.
 */
static void swap_huge(char **args)
{
	int fd = memory_file("huge", 2 * PMD_PAGES);
	char *p = map_huge(2 * PMD_PAGES, MAP_SHARED, fd), *q;

	write_pages(p, 0, 2 * PMD_PAGES, 1);
	check(!madvise(p, 2 * PMD_SIZE, MADV_COLLAPSE), "madvise(MADV_COLLAPSE)");
	/* One private copy in each, so that there is a page table with holes to look up. */
	q = map_huge(2 * PMD_PAGES, MAP_PRIVATE, fd);
	write_pages(q, 0, 2 * PMD_PAGES, PMD_PAGES);
	page_out(p, 2 * PMD_PAGES);
	fact("shared", p, 2 * PMD_PAGES, "empty", 1024L, "shmem_swapped", 1024L, NULL);
	fact("copy", q, 2 * PMD_PAGES, "anon", 2L, "empty", 1022L, "shmem_swapped", 1022L, NULL);
}

/* A private huge page on swap: 512 entries. */
static void swap_thp(char **args)
{
	char *p = map_huge(2 * PMD_PAGES, PRIVATE_ANON, -1);

	write_pages(p, 0, PMD_PAGES, 1);
	page_out(p, PMD_PAGES);
	read_pages(p, 0, 1, 1);
	/* Reading one page back may bring in its neighbours: count what came. */
	long back = count_present(p, PMD_PAGES);
	fact("thp", p, 2 * PMD_PAGES, "anon", back, "swapped", (long)PMD_PAGES - back, "empty", 512L,
	     NULL);
}

const struct zoo_case swap_cases[] = {
	{ "swap_private", swap_private },
	{ "swap_forked", swap_forked },
	{ "swap_shmem", swap_shmem },
	{ "swap_mixed", swap_mixed },
	{ "swap_huge", swap_huge },
	{ "swap_thp", swap_thp },
	{ NULL, NULL },
};
