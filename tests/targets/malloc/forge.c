/* Plant contradictory words in malloc's own records. For each line on standard input, a seed:
 * restore everything as it was, overwrite some words, and answer with a line. End of input ends it.
 *
 * After start-up nothing here calls malloc, whose records are then wrong.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 3
#define CHUNKS 400
#define HEAP_MAX (64ul << 20)
#define MOST_REGIONS 16
#define STATE_WORDS 274
#define PART (640ul << 10)	/* of each heap */

typedef uint64_t word;

/* What may be overwritten, and what it held. */
static struct region {
	word *words, *before;
	size_t count;
} regions[MOST_REGIONS];
static size_t known;

static pthread_barrier_t all_done;
static word *blocks[THREADS + 1][CHUNKS];
static word *own_stack[THREADS];
static word state = 1;

static word next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static void fill(word **mine)
{
	for (size_t i = 0; i < CHUNKS; i++) {
		mine[i] = malloc(i % 5 ? 24 + i * 16 : 40);
		if (!mine[i])
			abort();
		memset(mine[i], 0, 16);
	}
	for (size_t i = 0; i < CHUNKS; i++)
		if (i % 3)
			free(mine[i]);
}

static void *worker(void *number)
{
	intptr_t row = (intptr_t)number;

	fill(blocks[row]);
	own_stack[row] = (word *)pthread_self();
	pthread_barrier_wait(&all_done);
	for (;;)
		syscall(SYS_pause);
	return NULL;
}

static void add(void *start, size_t bytes)
{
	struct region *region = &regions[known++];
	void *copy = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (copy == MAP_FAILED)
		abort();
	*region = (struct region){ start, memcpy(copy, start, bytes), bytes / sizeof(word) };
}

/* A word that is likely to lead astray whoever believes it. */
static word astray(const struct region *region, size_t at)
{
	const struct region *other = &regions[next_random() % known];
	word near = (word)(other->words + next_random() % other->count);

	switch (next_random() % 14) {
	case 0: return 0;
	case 1: return next_random();
	case 2: return -(next_random() % 64);			/* near 2^64 */
	case 3: return (1ul << 63) | (next_random() % 64);
	case 4: return near & -16ul;
	case 5: return near;
	case 6: return (word)(region->words + at) - 16;	/* a ring of its own */
	case 7: return (near & -HEAP_MAX) + (next_random() % 4 << 5);
	case 8: return next_random() % 4096 & -8ul;
	case 9: return 0x290 | (next_random() & 7);
	case 10: return 0x21 + 16 * (next_random() % 8);
	case 11: return 1ul << next_random() % 64;
	case 12: return region->words[next_random() % region->count];
	default: return region->words[at] ^ (1ul << next_random() % 64);
	}
}

static void plant(word seed)
{
	size_t count, first;

	state = seed * 0x9E3779B97F4A7C15ul | 1;
	for (int i = 0; i < 8; i++)
		next_random();
	for (size_t i = 0; i < known; i++)
		memcpy(regions[i].words, regions[i].before, regions[i].count * sizeof(word));
	count = 1ul << next_random() % 13;
	/* half of the time malloc_state itself is left alone: otherwise it is hardly ever found */
	first = next_random() % 2 ? 2 : 0;
	for (size_t i = 0; i < count; i++) {
		const struct region *region = &regions[first + next_random() % (known - first)];
		size_t at = next_random() % region->count;

		region->words[at] = astray(region, at);
		/* every so often the same word over and over: rings, and many alike */
		if (next_random() % 256 == 0)
			for (size_t j = at; j + 2 < region->count && j < at + 20000; j += 2)
				region->words[j] = region->words[at];
	}
}

int main(void)
{
	char line[32];
	word *large, *small, *records;
	word *volatile keep;

	pthread_barrier_init(&all_done, NULL, THREADS + 1);
	for (intptr_t i = 0; i < THREADS; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, worker, (void *)i))
			abort();
	}
	pthread_barrier_wait(&all_done);
	fill(blocks[THREADS]);
	memset(malloc(300000), 0, 300000);	/* a mapping of its own */
	large = malloc(3000);
	small = malloc(24);
	keep = large;
	free(large);	/* on the unsorted list, as its first: its second link leads to malloc_state */
	records = (word *)keep[1];

	add((void *)((word)records & -4096ul), 4096);	/* malloc_state, and mp_ near it */
	add(records - 12, STATE_WORDS * sizeof(word));
	add((void *)((word)small & -4096ul), 4096);
	add((void *)((word)blocks[THREADS][0] & -4096ul), PART);
	for (int i = 0; i < THREADS; i++) {
		add((void *)((word)blocks[i][0] & -HEAP_MAX), PART);
		add((void *)((word)blocks[i][0] & -HEAP_MAX), 4096);
		add(own_stack[i], 0x700);
	}
	for (;;) {
		ssize_t got = read(0, line, sizeof line - 1);
		word seed = 0;

		if (got <= 0)
			_exit(0);
		for (ssize_t i = 0; i < got && line[i] >= '0' && line[i] <= '9'; i++)
			seed = 10 * seed + (line[i] - '0');
		plant(seed);
		if (write(1, "done\n", 5) != 5)
			_exit(1);
	}
}
