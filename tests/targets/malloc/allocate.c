/* Allocate and free in a known pattern, then answer on standard output, a JSON object a line:
 * "info" malloc's own numbers, "trim" the same after malloc_trim(0). End of input ends it.
 *
 * usage: allocate PATTERN [restless]
 *
 * A restless one has a thread that wakes up every millisecond, and never allocates.
 *
 * It runs with each glibc from 2.31 on: mallinfo2 (2.33) is looked up when it is needed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KIB 1024ul

static uint64_t state = 88172645463325252u;

/* xorshift64: the same numbers in each run */
static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static void *touched(size_t size)
{
	char *block = malloc(size);

	if (!block)
		abort();
	return memset(block, 1, size);
}

/* Blocks of low to high bytes, all freed in random order but one in `keep` (0: none is kept). */
static void scatter(size_t count, size_t low, size_t high, size_t keep)
{
	void **blocks = malloc(count * sizeof *blocks);

	for (size_t i = 0; i < count; i++)
		blocks[i] = touched(low + next_random() % (high - low + 1));
	for (size_t i = count - 1; i > 0; i--) {
		size_t j = next_random() % (i + 1);
		void *other = blocks[i];

		blocks[i] = blocks[j];
		blocks[j] = other;
	}
	for (size_t i = 0; i < count; i++)
		if (!keep || i % keep)
			free(blocks[i]);
	free(blocks);
}

/* Blocks of one size, in address order, all freed but one in `keep`: none can merge past those. */
static void comb(size_t count, size_t size, size_t keep)
{
	void **blocks = malloc(count * sizeof *blocks);

	for (size_t i = 0; i < count; i++)
		blocks[i] = touched(size);
	for (size_t i = 0; i < count; i++)
		if (i % keep)
			free(blocks[i]);
	free(blocks);
}

static pthread_barrier_t all_done;

static void *worker(void *number)
{
	if ((intptr_t)number % 2)
		comb(20000, 700, 7);
	else
		scatter(20000, 24, 3000, 9);
	pthread_barrier_wait(&all_done);
	for (;;)
		pause();
	return NULL;
}

static void start_workers(unsigned count, void *(*run)(void *))
{
	pthread_barrier_init(&all_done, NULL, count + 1);
	for (intptr_t i = 0; i < count; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, run, (void *)i))
			abort();
	}
	pthread_barrier_wait(&all_done);
}

static void *many_heaps(void *number)
{
	(void)number;
	scatter(100000, 24, 3000, 9);
	pthread_barrier_wait(&all_done);
	for (;;)
		pause();
	return NULL;
}

static void *short_lived(void *number)
{
	comb(10000 + 1000 * (intptr_t)number, 300, 5);
	return NULL;
}

/* Arenas whose threads have ended: others take them over. */
static void ended(void)
{
	for (int round = 0; round < 2; round++)
		for (intptr_t i = 0; i < 4; i++) {
			pthread_t thread;

			if (pthread_create(&thread, NULL, short_lived, (void *)i))
				abort();
			pthread_join(thread, NULL);
		}
}

static void *churner(void *number)
{
	static __thread void *slots[4096];

	(void)number;
	pthread_barrier_wait(&all_done);
	for (;;) {
		size_t i = next_random() % 4096;

		free(slots[i]);
		slots[i] = malloc(16 + next_random() % 4000);
	}
	return NULL;
}

/* Chunks that are mappings of their own, some freed again, one of them aligned. */
static void mapped(void)
{
	mallopt(M_MMAP_THRESHOLD, 128 * KIB);
	for (size_t i = 0; i < 30; i++) {
		void *block = touched(200 * KIB + i * 5000);

		if (i % 3 == 0)
			free(block);
	}
	memset(memalign(1024 * KIB, 3072 * KIB), 1, 3072 * KIB);
	scatter(10000, 16, 5000, 11);
}

/* Somebody else moves the break in between. */
static void foreign_break(void)
{
	scatter(10000, 16, 2000, 5);
	sbrk(12345);
	scatter(10000, 16, 2000, 5);
	sbrk(12288);
	scatter(20000, 16, 2000, 5);
}

/* The break cannot grow from the start, so that the main arena never has a heap there. */
static void *wall_at_break(void)
{
	void *wall = (void *)(((uintptr_t)sbrk(0) + 4095) & -4096ul);

	return mmap(wall, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* The break cannot grow, so that the main arena maps memory elsewhere. */
static void blocked_break(void)
{
	char *wall;

	scatter(3000, 16, 2000, 5);
	wall = (char *)(((uintptr_t)sbrk(0) + 1024 * KIB) & -4096ul);
	if (mmap(wall, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != wall)
		abort();
	scatter(20000, 16, 2000, 5);
}

/* Everything is locked, which malloc_trim(0) cannot return but for the end of the heap. */
static void locked(void)
{
	scatter(50000, 16, 3000, 9);
	if (mlockall(MCL_CURRENT))
		abort();
}

/* Pages in the middle of free chunks are locked: of those it returns what is before. */
static void partly_locked(void)
{
	enum { COUNT = 20 };
	char *blocks[COUNT];

	for (size_t i = 0; i < COUNT; i++)
		blocks[i] = touched(100 * KIB);
	for (size_t i = 0; i < COUNT - 1; i++)
		if (i % 5)
			free(blocks[i]);
	for (size_t i = 2; i < COUNT - 1; i += 10)
		if (mlock((void *)((uintptr_t)blocks[i] & -4096ul), 3 * 4096))
			abort();
}

static void run(const char *pattern)
{
	if (!strcmp(pattern, "scattered"))
		scatter(100000, 16, 3000, 5);
	else if (!strcmp(pattern, "freed"))
		scatter(50000, 16, 3000, 0);
	else if (!strcmp(pattern, "comb"))
		comb(50000, 700, 3);
	else if (!strcmp(pattern, "wide_comb"))
		comb(50000, 700, 50);
	else if (!strcmp(pattern, "fastbins"))
		comb(100000, 40, 2);
	else if (!strcmp(pattern, "threads"))
		start_workers(4, worker);
	else if (!strcmp(pattern, "many_heaps"))
		start_workers(2, many_heaps);
	else if (!strcmp(pattern, "churn"))
		start_workers(3, churner);
	else if (!strcmp(pattern, "ended"))
		ended();
	else if (!strcmp(pattern, "mapped"))
		mapped();
	else if (!strcmp(pattern, "locked"))
		locked();
	else if (!strcmp(pattern, "partly_locked"))
		partly_locked();
	else if (!strcmp(pattern, "foreign_break"))
		foreign_break();
	else if (!strcmp(pattern, "blocked_break"))
		blocked_break();
	else if (!strcmp(pattern, "no_break"))
		scatter(20000, 16, 2000, 5);
	else if (strcmp(pattern, "nothing"))
		exit(2);
}

/* struct mallinfo2; the fields of struct mallinfo are ints */
struct numbers {
	size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};

static struct numbers ask(void)
{
	struct numbers (*newer)(void) = (struct numbers (*)(void))dlsym(RTLD_DEFAULT, "mallinfo2");
	struct mallinfo m;

	if (newer)
		return newer();
	m = mallinfo();
	return (struct numbers){
		.arena = m.arena, .hblks = m.hblks, .hblkhd = m.hblkhd,
		.uordblks = m.uordblks, .fordblks = m.fordblks,
	};
}

static void answer(void)
{
	struct numbers m = ask();
	char line[256];
	int length = snprintf(line, sizeof line,
		"{\"obtained\": %zu, \"in_use\": %zu, \"free\": %zu, \"chunks\": %zu, \"mmapped\": %zu}\n",
		m.arena, m.uordblks, m.fordblks, m.hblks, m.hblkhd);

	if (write(1, line, length) != length)
		abort();
}

/* Answer until the end of input. Another program may call this from a library made of this file. */
void serve(void)
{
	char line[64];

	/* snprintf and dlsym allocate when they are first called */
	snprintf(line, sizeof line, "%zu", sizeof line);
	dlsym(RTLD_DEFAULT, "mallinfo2");
	answer();
	while (read(0, line, sizeof line) > 0) {
		if (line[0] == 't')
			malloc_trim(0);
		answer();
	}
	_exit(0);
}

static _Atomic unsigned woken;

static void *wake_up(void *unused)
{
	for (;; woken++)
		usleep(1000);
	return unused;
}

int main(int count, char **words)
{
	char line[64];
	pthread_t thread;

	if (count < 2)
		return 2;
	if (!strcmp(words[1], "no_break") && wall_at_break() == MAP_FAILED)
		abort();
	/* as above: before the pattern, not amid it */
	snprintf(line, sizeof line, "%zu", sizeof line);
	dlsym(RTLD_DEFAULT, "mallinfo2");
	run(words[1]);
	if (count > 2 && pthread_create(&thread, NULL, wake_up, NULL))
		abort();
	/* then it has touched all of its stack that it ever will */
	while (count > 2 && woken < 2)
		usleep(1000);
	serve();
}
