/* Mappings of files on disk and in memory. */
#include "zoo.h"
#include <sys/shm.h>

/*
 * Thirds of one mapping: read, written, untouched. A read maps the 64 KiB around it, so the
 * thirds are multiples of 16 pages.
 */
static char *thirds(int flags, int fd)
{
	char *p = map(96, flags, fd, 0);

	read_pages(p, 0, 32, 1);
	write_pages(p, 32, 64, 1);
	return p;
}

static void file_private(char **args)
{
	char *p = thirds(MAP_PRIVATE, disk_file("private.dat", 96));

	fact("private", p, 96, "file", 32L, "anon", 32L, "empty", 32L, NULL);
}

static void file_shared(char **args)
{
	char *p = thirds(MAP_SHARED, disk_file("shared.dat", 96));

	fact("shared", p, 96, "file", 64L, "empty", 32L, NULL);
}

static void map_shmem(int fd)
{
	char *shared, *copy, *reader;

	shared = map(96, MAP_SHARED, fd, 0);
	write_pages(shared, 0, 64, 1);
	fact("shared", shared, 96, "shmem", 64L, "empty", 32L, NULL);
	/* Pages 32..64 are in the cache and 64..96 are holes: writing copies either. */
	copy = map(96, MAP_PRIVATE, fd, 0);
	read_pages(copy, 0, 16, 1);
	write_pages(copy, 48, 80, 1);
	fact("copy", copy, 96, "shmem", 16L, "anon", 32L, "empty", 48L, NULL);
	reader = mmap(place(96, 16 * PAGE), 96 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	check(reader != MAP_FAILED, "mmap read-only");
	read_pages(reader, 0, 32, 1);
	fact("reader", reader, 96, "shmem", 32L, "empty", 64L, NULL);
}

static void memfd(char **args)
{
	map_shmem(memory_file("zoo", 96));
}

static void tmpfs(char **args)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/shm/zoo-%d", getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	check(fd >= 0 && !unlink(path) && !ftruncate(fd, 96 * PAGE), "create a file in /dev/shm");
	map_shmem(fd);
}

static void sysv(char **args)
{
	int id = shmget(IPC_PRIVATE, 64 * PAGE, IPC_CREAT | 0600);
	char *p;

	check(id >= 0, "shmget");
	p = shmat(id, place(64, PAGE), SHM_REMAP);
	check(p != (void *)-1 && !shmctl(id, IPC_RMID, NULL), "shmat");
	write_pages(p, 0, 32, 1);
	fact("segment", p, 64, "shmem", 32L, "empty", 32L, NULL);
}

/* Names that break parsers: the maps file writes a newline as \012 and marks unlinked files. */
static void names(char **args)
{
	static const char *const files[][2] = {
		{ "spaces", "two  spaces.dat" },
		{ "newline", "new\nline.dat" },
		{ "deleted", "looks (deleted)" },
		{ "unlinked", "gone.dat" },
		{ "backslash", "back\\012slash.dat" },
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		char *p = map(16, MAP_SHARED, disk_file(files[i][1], 16), 0);

		write_pages(p, 0, 16, 1);
		fact(files[i][0], p, 16, "file", 16L, NULL);
	}
	check(!unlink("gone.dat"), "unlink");
}

const struct zoo_case file_cases[] = {
	{ "file_private", file_private }, { "file_shared", file_shared }, { "memfd", memfd },
	{ "tmpfs", tmpfs },               { "names", names },             { "sysv", sysv },
	{ NULL, NULL },
};
