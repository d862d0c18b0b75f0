/* Anonymous memory: private, shared, forked, sparse. */
#include "zoo.h"

static void plain(char **args)
{
	char *p = map(164, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 100, 1);
	fact("plain", p, 164, "anon", 100L, "empty", 64L, NULL);
}

static void zero_reads(char **args)
{
	char *p = map(112, PRIVATE_ANON, -1, 0);

	read_pages(p, 0, 64, 1);
	write_pages(p, 64, 96, 1);
	fact("zeroes", p, 112, "zero", 64L, "anon", 32L, "empty", 16L, NULL);
}

/* Child k of three writes [0, 8k): 8 pages each get 1, 2 and 3 mappings, and 24 get 4. */
static void fork_cow(char **args)
{
	char *p = map(64, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 48, 1);
	for (long k = 1; k <= 3; k++) {
		char name[16];

		if (child())
			continue;
		write_pages(p, 0, 8 * k, 1);
		snprintf(name, sizeof(name), "child%ld", k);
		/* Its own copies; [8k, 24) is shared by those that have not written it. */
		fact(name, p, 64, "anon", 48L, "empty", 16L, "mapped_by_1", 8 * k, "mapped_by_2",
		     k <= 1 ? 8L : 0L, "mapped_by_3", k <= 2 ? 8L : 0L, "mapped_by_4", 24L, NULL);
		done();
	}
	gather(3);
	fact("parent", p, 64, "anon", 48L, "empty", 16L, "mapped_by_1", 8L, "mapped_by_2", 8L,
	     "mapped_by_3", 8L, "mapped_by_4", 24L, NULL);
}

/* Seven pages mapped three times: 7 x 4096 / 3 is not a whole number of bytes. */
static void fork_three(char **args)
{
	char *p = map(16, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 7, 1);
	for (int k = 1; k <= 2; k++) {
		if (child())
			continue;
		fact(k == 1 ? "child1" : "child2", p, 16, "anon", 7L, "empty", 9L, "mapped_by_3", 7L,
		     NULL);
		done();
	}
	gather(2);
	fact("parent", p, 16, "anon", 7L, "empty", 9L, "mapped_by_3", 7L, NULL);
}

/* The child's pages are in the page cache, but the parent has no entry for them. */
static void shared_fork(char **args)
{
	char *p = map(80, SHARED_ANON, -1, 0);

	write_pages(p, 0, 32, 1);
	if (!child()) {
		write_pages(p, 16, 64, 1);
		fact("child", p, 80, "shmem", 48L, "empty", 32L, "mapped_by_1", 32L, "mapped_by_2",
		     16L, NULL);
		done();
	}
	gather(1);
	fact("parent", p, 80, "shmem", 32L, "empty", 48L, "mapped_by_1", 16L, "mapped_by_2", 16L,
	     NULL);
}

static void locked(char **args)
{
	char *whole = map(32, PRIVATE_ANON, -1, 0);
	char *part = map(96, PRIVATE_ANON, -1, 0);

	check(!mlock(whole, 32 * PAGE), "mlock");
	/* mlock2 splits the VMA in three; ONFAULT does not populate. */
	check(!mlock2(part + 32 * PAGE, 32 * PAGE, MLOCK_ONFAULT), "mlock2(MLOCK_ONFAULT)");
	write_pages(part, 24, 40, 1);
	fact("whole", whole, 32, "anon", 32L, "locked", 32L, NULL);
	fact("before", part, 32, "anon", 8L, "empty", 24L, "locked", 0L, NULL);
	fact("onfault", part + 32 * PAGE, 32, "anon", 8L, "empty", 24L, "locked", 8L, NULL);
	fact("after", part + 64 * PAGE, 32, "empty", 32L, "locked", 0L, NULL);
}

/* Everything, including pages of libc, which other processes map. */
static void locked_all(char **args)
{
	char *p = map(32, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 16, 1);
	check(!mlockall(MCL_CURRENT), "mlockall");
	fact("memory", p, 32, "anon", 32L, "locked", 32L, NULL);
}

/* mremap(MREMAP_DONTUNMAP) adds locked memory to VmLck again; munmap subtracts it once. */
static void locked_leak(char **args)
{
	long pages = number(args, 0, 256);
	char *p = map(pages, PRIVATE_ANON, -1, 0), *q;

	check(!mlock(p, pages * PAGE), "mlock");
	q = mremap(p, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */, NULL);
	check(q != MAP_FAILED, "mremap(MREMAP_DONTUNMAP)");
	check(!munmap(p, pages * PAGE) && !munmap(q, pages * PAGE), "munmap");
	say("{\"leak\": {\"pid\": %d, \"pages\": %ld}}", getpid(), pages);
}

static void prot_none(char **args)
{
	char *p = map(64, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 48, 1);
	check(!mprotect(p + 16 * PAGE, 48 * PAGE, PROT_NONE), "mprotect");
	fact("open", p, 16, "anon", 16L, NULL);
	fact("barred", p + 16 * PAGE, 48, "anon", 32L, "empty", 16L, NULL);
}

static void lazyfree(char **args)
{
	char *p = map(64, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 48, 1);
	stay();
	/* The first call leaves the pages in this CPU's batch, the second drains it. */
	for (int i = 0; i < 2; i++)
		check(!madvise(p, 16 * PAGE, MADV_FREE), "madvise(MADV_FREE)");
	fact("free", p, 64, "anon", 48L, "empty", 16L, "lazyfree", 16L, NULL);
}

static void reservation(char **args)
{
	size_t pages = number(args, 0, 16) << 28; /* TiB */
	char *p = map(pages, PRIVATE_ANON | MAP_NORESERVE, -1, 0);
	long touched = write_pages(p, 0, pages - 1, pages / 999 + 1);

	/* The last page as well: a walk must not stop early. 999 + 1 pages for 16 TiB. */
	touched += write_pages(p, pages - 1, pages, 1);
	fact("reserved", p, pages, "anon", touched, "empty", (long)pages - touched, NULL);
}

/* Freed under memory pressure instead of being swapped: anonymous, but not backed by swap. */
static void droppable(char **args)
{
	char *p = mmap(NULL, 32 * PAGE, RW, 0x08 /* MAP_DROPPABLE */ | MAP_ANONYMOUS, -1, 0);

	check(p != MAP_FAILED, "mmap(MAP_DROPPABLE)");
	write_pages(p, 0, 16, 1);
	fact("droppable", p, 32, "anon", 16L, "empty", 16L, "lazyfree", 0L, NULL);
}

static void runs(char **args)
{
	long n = number(args, 0, 513);
	char *p = map(2 * n, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 2 * n, 2);
	fact("runs", p, 2 * n, "anon", n, "empty", n, NULL);
}

/* Every other page is read-only: as many VMAs as pages, each with one page. */
static void vmas(char **args)
{
	long n = number(args, 0, 3000);
	char *p = map(n, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, n, 1);
	for (long i = 0; i < n; i += 2)
		check(!mprotect(p + i * PAGE, PAGE, PROT_READ), "mprotect");
	fact("area", p, n, "vmas", n, NULL);
}

static void dense(char **args)
{
	long pages = number(args, 0, 64) << 8; /* MiB */
	char *p = map(pages, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, pages, 1);
	fact("dense", p, pages, "anon", pages, NULL);
}

const struct zoo_case anon_cases[] = {
	{ "plain", plain },       { "zero_reads", zero_reads },   { "fork_cow", fork_cow },
	{ "fork_three", fork_three }, { "shared_fork", shared_fork }, { "locked", locked },
	{ "locked_all", locked_all }, { "locked_leak", locked_leak },
	{ "prot_none", prot_none }, { "lazyfree", lazyfree },   { "reservation", reservation },
	{ "runs", runs },         { "dense", dense },           { "droppable", droppable },
	{ "vmas", vmas },
	{ NULL, NULL },
};
