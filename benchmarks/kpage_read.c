/*
 * kpage_read PID: the lowest cost of the flags and mapcounts of a process's frames through /proc.
 *
 * Collects the PFNs of the process's present pages from pagemap and sorts them; neither is timed.
 * Then reads their kpageflags and kpagecount in ascending runs, each frame once, up to 1 MiB per
 * call. Prints nanoseconds, frames and calls.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_SHIFT = 12, CHUNK = 1 << 17 }; /* words: 1 MiB */

/* This many unwanted words cost less than a call: about 70 ns per word, 700 ns per call. */
enum { GAP = 8 };

#define PFN_MASK ((1UL << 55) - 1)

static uint64_t words[CHUNK];
static uint64_t *frames;
static size_t count, room;

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

static long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void add_frame(uint64_t pfn)
{
	if (count == room) {
		room = room ? 2 * room : CHUNK;
		frames = realloc(frames, room * sizeof(*frames));
		if (!frames) {
			perror("realloc");
			exit(1);
		}
	}
	frames[count++] = pfn;
}

static void collect_vma(int pagemap, unsigned long page, unsigned long end)
{
	while (page < end) {
		unsigned long left = end - page;
		size_t want = (left < CHUNK ? left : CHUNK) * sizeof(*words);
		ssize_t got = pread(pagemap, words, want, page * sizeof(*words));

		if (got <= 0)
			return;
		for (size_t i = 0; i < got / sizeof(*words); i++)
			if (words[i] >> 63 && (words[i] & PFN_MASK))
				add_frame(words[i] & PFN_MASK);
		page += got / sizeof(*words);
	}
}

static void collect_process(const char *pid)
{
	unsigned long start, end;
	char path[64], line[8192];
	int pagemap;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%s/pagemap", pid);
	pagemap = open_file(path);
	snprintf(path, sizeof(path), "/proc/%s/maps", pid);
	maps = fdopen(open_file(path), "r");
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &start, &end) == 2)
			collect_vma(pagemap, start >> PAGE_SHIFT, end >> PAGE_SHIFT);
	fclose(maps);
	close(pagemap);
}

static int ascending(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

/* Read the words of all frames in runs; return the number of calls. */
static long read_all(int fd)
{
	long calls = 0;

	for (size_t i = 0, next; i < count; i = next) {
		uint64_t first = frames[i], last = first;

		for (next = i + 1; next < count; next++) {
			if (frames[next] > last + GAP || frames[next] - first >= CHUNK)
				break;
			last = frames[next];
		}
		if (pread(fd, words, (last - first + 1) * sizeof(*words), first * sizeof(*words)) < 0) {
			perror("pread");
			exit(1);
		}
		calls++;
	}
	return calls;
}

int main(int argc, char **argv)
{
	int flags, counts;
	long begin, calls;

	if (argc < 2)
		return 1;
	collect_process(argv[1]);
	qsort(frames, count, sizeof(*frames), ascending);
	flags = open_file("/proc/kpageflags");
	counts = open_file("/proc/kpagecount");
	begin = now_ns();
	calls = read_all(flags) + read_all(counts);
	printf("%ld %zu %ld\n", now_ns() - begin, count, calls);
	return 0;
}
