/* Entries and pages that the kernel marks: guard regions, userfaultfd, KSM. */
#include "zoo.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#ifndef UFFD_FEATURE_WP_UNPOPULATED /* Linux 6.4 */
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFDIO_POISON /* Linux 6.6 */
#define UFFD_FEATURE_POISON (1 << 14)
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

/* Guards over 8 written and 8 untouched pages. */
static void guard(char **args)
{
	char *p = map(64, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, 32, 1);
	check(!madvise(p + 24 * PAGE, 16 * PAGE, MADV_GUARD_INSTALL), "madvise(MADV_GUARD_INSTALL)");
	fact("anon", p, 64, "anon", 24L, "guard", 16L, "empty", 24L, NULL);
}

static void guard_file(char **args)
{
	char *p = map(64, MAP_SHARED, disk_file("guard.dat", 64), 0);

	read_pages(p, 0, 32, 1);
	check(!madvise(p + 24 * PAGE, 16 * PAGE, MADV_GUARD_INSTALL), "madvise(MADV_GUARD_INSTALL)");
	fact("file", p, 64, "file", 24L, "guard", 16L, "empty", 24L, NULL);
}

static int userfaultfd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	check(fd >= 0, "userfaultfd");
	check(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	return fd;
}

static void watch(int fd, char *p, size_t pages, uint64_t mode)
{
	struct uffdio_register area = { .range = { (uintptr_t)p, pages * PAGE }, .mode = mode };

	check(!ioctl(fd, UFFDIO_REGISTER, &area), "UFFDIO_REGISTER");
}

static void write_protect(int fd, char *p, size_t pages)
{
	struct uffdio_writeprotect area = { .range = { (uintptr_t)p, pages * PAGE },
					    .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	check(!ioctl(fd, UFFDIO_WRITEPROTECT, &area), "UFFDIO_WRITEPROTECT");
}

/* Protects 16 written pages, and 16 without a page, where a marker must be. */
static void uffd_wp(char **args)
{
	int fd = userfaultfd(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED |
			     UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
	char *anon = map(64, PRIVATE_ANON, -1, 0);
	char *shmem = map(64, SHARED_ANON, -1, 0);

	watch(fd, anon, 64, UFFDIO_REGISTER_MODE_WP);
	watch(fd, shmem, 64, UFFDIO_REGISTER_MODE_WP);
	write_pages(anon, 0, 32, 1);
	write_pages(shmem, 0, 32, 1);
	write_protect(fd, anon + 16 * PAGE, 32);
	write_protect(fd, shmem + 16 * PAGE, 32);
	fact("anon", anon, 64, "anon", 32L, "marker", 16L, "empty", 16L, "uffd_wp", 32L, NULL);
	fact("shmem", shmem, 64, "shmem", 32L, "marker", 16L, "empty", 16L, "uffd_wp", 32L, NULL);
}

static void uffd_poison(char **args)
{
	int fd = userfaultfd(UFFD_FEATURE_POISON);
	char *p = map(64, PRIVATE_ANON, -1, 0);
	struct uffdio_poison area = { .range = { (uintptr_t)p + 32 * PAGE, 8 * PAGE } };

	/* Write before registering: after that a missing page would wait for a handler. */
	write_pages(p, 0, 16, 1);
	watch(fd, p, 64, UFFDIO_REGISTER_MODE_MISSING);
	check(!ioctl(fd, UFFDIO_POISON, &area), "UFFDIO_POISON");
	fact("poison", p, 64, "anon", 16L, "poisoned", 8L, "empty", 40L, NULL);
}

static long number_in(const char *path, const char *key)
{
	char text[1024];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	check(n >= 0, path);
	close(fd);
	text[n] = 0;
	char *at = strstr(text, key);
	return at ? atol(at + strlen(key)) : -1;
}

/* 60 pages are merged into one, 20 differ and stay, 20 are merged with the zero page. */
static void ksm(char **args)
{
	char *p = map(112, PRIVATE_ANON, -1, 0);

	memset(p, 's', 60 * PAGE);
	write_pages(p, 60, 80, 1);
	memset(p + 80 * PAGE, 0, 20 * PAGE);
	check(!madvise(p, 112 * PAGE, MADV_MERGEABLE), "madvise(MADV_MERGEABLE)");
	errno = ENOTSUP;
	check(number_in("/proc/self/ksm_stat", "ksm_zero_pages ") >= 0, "see merged zero pages");
	for (int i = 0; i < 3000; i++) {
		if (number_in("/proc/self/ksm_stat", "ksm_merging_pages ") == 60 &&
		    number_in("/proc/self/ksm_stat", "ksm_zero_pages ") == 20) {
			fact("ksm", p, 112, "anon", 80L, "zero", 20L, "empty", 12L, "ksm", 60L, NULL);
			return;
		}
		usleep(10000);
	}
	errno = ETIMEDOUT;
	cannot("wait for KSM to merge (is it running?)");
}

const struct zoo_case mark_cases[] = {
	{ "guard", guard },     { "guard_file", guard_file }, { "uffd_wp", uffd_wp },
	{ "uffd_poison", uffd_poison }, { "ksm", ksm },       { NULL, NULL },
};
