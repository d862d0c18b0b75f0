/* Transparent huge pages and hugetlb. */
#include "zoo.h"

#define PUD_PAGES (512 * PMD_PAGES)

static char *anon_thp(void)
{
	char *p = map_huge(2 * PMD_PAGES, PRIVATE_ANON, -1);

	write_pages(p, 0, 1, 1);
	check(count_present(p, PMD_PAGES) == PMD_PAGES, "get a huge page");
	return p;
}

static void thp(char **args)
{
	char *p = anon_thp();

	fact("thp", p, 2 * PMD_PAGES, "anon", 512L, "empty", 512L, "pmd_mapped", 512L, NULL);
}

/* The parent keeps its huge entry; half of the pages have one mapping and half have two. */
static void thp_part(char **args)
{
	char *p = anon_thp();

	if (!child()) {
		check(!munmap(p, PMD_SIZE / 2), "munmap");
		fact("child", p + PMD_SIZE / 2, PMD_PAGES + 256, "anon", 256L, "empty", 512L,
		     "pmd_mapped", 0L, "mapped_by_2", 256L, NULL);
		done();
	}
	gather(1);
	fact("parent", p, 2 * PMD_PAGES, "anon", 512L, "empty", 512L, "pmd_mapped", 512L,
	     "mapped_by_1", 256L, "mapped_by_2", 256L, NULL);
}

static void thp_fork(char **args)
{
	char *p = anon_thp();

	if (!child())
		done();
	gather(1);
	fact("parent", p, 2 * PMD_PAGES, "anon", 512L, "empty", 512L, "pmd_mapped", 512L,
	     "mapped_by_2", 512L, NULL);
}

/* A VMA boundary inside a huge page splits the entry, not the folio. */
static void thp_split(char **args)
{
	char *p = anon_thp();

	check(!mprotect(p, 100 * PAGE, PROT_READ), "mprotect");
	fact("read_only", p, 100, "anon", 100L, "pmd_mapped", 0L, NULL);
	fact("writable", p + 100 * PAGE, 2 * PMD_PAGES - 100, "anon", 412L, "empty", 512L,
	     "pmd_mapped", 0L, NULL);
}

/* The folio stays whole in RAM; 100 pages of it are mapped by nobody. */
static void thp_holes(char **args)
{
	char *p = anon_thp();

	check(!madvise(p + 50 * PAGE, 100 * PAGE, MADV_DONTNEED), "madvise(MADV_DONTNEED)");
	fact("holes", p, 2 * PMD_PAGES, "anon", 412L, "empty", 612L, "pmd_mapped", 0L, "partly",
	     412L, "stranded", 100L, NULL);
}

/* All of a folio in a row, but where no entry of a PMD could map it. */
static void thp_moved(char **args)
{
	char *p = anon_thp(), *to = place(PMD_PAGES + 1, PMD_SIZE) + PAGE;

	check(mremap(p, PMD_SIZE, PMD_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
	fact("moved", to, PMD_PAGES, "anon", 512L, "pmd_mapped", 0L, "unaligned", 512L, NULL);
}

/* Every other page was written (argument: how many huge pages). */
static void thp_half(char **args)
{
	long pages = number(args, 0, 1) * PMD_PAGES;
	char *p = map_huge(pages, PRIVATE_ANON, -1);

	write_pages(p, 0, pages, 2);
	check(count_present(p, pages) == (size_t)pages, "get huge pages");
	fact("half", p, pages, "anon", pages, "pmd_mapped", pages, "zeros", pages / 2, NULL);
}

static void huge_zero(char **args)
{
	long pages = number(args, 0, 1) * PMD_PAGES;
	char *p = map_huge(pages + PMD_PAGES, PRIVATE_ANON, -1);

	read_pages(p, 0, pages, PMD_PAGES);
	check(count_present(p, pages) == (size_t)pages, "get the huge zero page");
	fact("zeroes", p, pages + PMD_PAGES, "zero", pages, "empty", (long)PMD_PAGES, "pmd_zero",
	     pages, NULL);
}

/* One huge page by MADV_COLLAPSE, mapped whole and, in another VMA, by 256 small entries. */
static void shmem_thp(char **args)
{
	int fd = memory_file("huge", 2 * PMD_PAGES);
	char *p = map_huge(2 * PMD_PAGES, MAP_SHARED, fd), *half;

	write_pages(p, 0, PMD_PAGES, 1);
	check(!madvise(p, PMD_SIZE, MADV_COLLAPSE), "madvise(MADV_COLLAPSE)");
	read_pages(p, 0, PMD_PAGES, 1);
	fact("whole", p, 2 * PMD_PAGES, "shmem", 512L, "empty", 512L, "pmd_mapped", 512L, NULL);
	half = map(256, MAP_SHARED, fd, 0);
	read_pages(half, 0, 256, 1);
	fact("half", half, 256, "shmem", 256L, "pmd_mapped", 0L, NULL);
}

/* A file system with large folios reads a huge one when the VMA asks for it. */
static void file_thp(char **args)
{
	int fd = disk_file("huge.dat", 2 * PMD_PAGES);
	char *p;

	/* Drop it, so that it is read again into a large folio; fsync would wait for other files. */
	check(!sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE_AND_WAIT) &&
		      !posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED),
	      "drop the cache");
	p = map_huge(2 * PMD_PAGES, MAP_PRIVATE, fd);
	read_pages(p, 0, 1, 1);
	check(count_present(p, PMD_PAGES) == PMD_PAGES, "get a huge file page");
	fact("file", p, 2 * PMD_PAGES, "file", 512L, "empty", 512L, "pmd_mapped", 512L, NULL);
}

static char *hugetlb(size_t pages, int flags)
{
	char *p = mmap(NULL, pages * PAGE, RW, flags | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	check(p != MAP_FAILED, "mmap(MAP_HUGETLB)");
	return p;
}

static void hugetlb_private(char **args)
{
	char *p = hugetlb(3 * PMD_PAGES, MAP_PRIVATE);

	write_pages(p, 0, 2 * PMD_PAGES, PMD_PAGES);
	fact("private", p, 3 * PMD_PAGES, "hugetlb", 1024L, "empty", 512L, "private", 1024L, NULL);
}

static void hugetlb_shared(char **args)
{
	char *p = hugetlb(3 * PMD_PAGES, MAP_SHARED);

	write_pages(p, 0, 2 * PMD_PAGES, PMD_PAGES);
	fact("shared", p, 3 * PMD_PAGES, "hugetlb", 1024L, "empty", 512L, "private", 1024L, NULL);
}

/* The parent writes pages 0 and 1, the child 1 and 2: one is shared. */
static void hugetlb_fork(char **args)
{
	char *p = hugetlb(3 * PMD_PAGES, MAP_SHARED);

	write_pages(p, 0, 2 * PMD_PAGES, PMD_PAGES);
	if (!child()) {
		write_pages(p, PMD_PAGES, 3 * PMD_PAGES, PMD_PAGES);
		fact("child", p, 3 * PMD_PAGES, "hugetlb", 1024L, "empty", 512L, "private", 512L,
		     NULL);
		done();
	}
	gather(1);
	fact("parent", p, 3 * PMD_PAGES, "hugetlb", 1024L, "empty", 512L, "private", 512L, NULL);
}

/* A whole aligned GiB of shared memory: the processes share the page table itself. */
static void hugetlb_pmd(char **args)
{
	int flags = SHARED_ANON | MAP_HUGETLB | MAP_NORESERVE | MAP_FIXED;
	char *p = mmap(place(PUD_PAGES, PUD_PAGES * PAGE), PUD_PAGES * PAGE, RW, flags, -1, 0);
	long empty = PUD_PAGES - 3 * PMD_PAGES;

	check(p != MAP_FAILED, "mmap(MAP_HUGETLB)");
	write_pages(p, 0, 2 * PMD_PAGES, PMD_PAGES);
	if (!child()) {
		write_pages(p, 2 * PMD_PAGES, 3 * PMD_PAGES, PMD_PAGES);
		fact("child", p, PUD_PAGES, "hugetlb", 1536L, "empty", empty, "private", 0L, NULL);
		done();
	}
	gather(1);
	/* Including the child's page: it went into the shared table. */
	fact("parent", p, PUD_PAGES, "hugetlb", 1536L, "empty", empty, "private", 0L, NULL);
}

/*
 * Whether Linux 6.18 calls it private or shared is random: smaps and pagemap read the table's share
 * count (pt_share_count), which only PMD tables have, while this leaf is in a PUD table.
 */
static void hugetlb_pud(char **args)
{
	char *p = hugetlb(PUD_PAGES, MAP_SHARED | 30 << MAP_HUGE_SHIFT);

	write_pages(p, 0, 1, 1);
	fact("gib", p, PUD_PAGES, "hugetlb", (long)PUD_PAGES, NULL);
}

const struct zoo_case huge_cases[] = {
	{ "thp", thp },
	{ "thp_part", thp_part },
	{ "thp_fork", thp_fork },
	{ "thp_split", thp_split },
	{ "thp_holes", thp_holes },
	{ "thp_moved", thp_moved },
	{ "thp_half", thp_half },
	{ "huge_zero", huge_zero },
	{ "shmem_thp", shmem_thp },
	{ "file_thp", file_thp },
	{ "hugetlb_private", hugetlb_private },
	{ "hugetlb_shared", hugetlb_shared },
	{ "hugetlb_fork", hugetlb_fork },
	{ "hugetlb_pmd", hugetlb_pmd },
	{ "hugetlb_pud", hugetlb_pud },
	{ NULL, NULL },
};
