/* Allocate MEBIBYTES in blocks of 4000 bytes, free every third one, and start THREADS threads, of
 * which one wakes up every millisecond; say so with a newline, then wait.
 *
 * usage: large MEBIBYTES THREADS
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *wake_up(void *unused)
{
	for (;;)
		usleep(1000);
	return unused;
}

static void *sleeping(void *unused)
{
	for (;;)
		pause();
	return unused;
}

int main(int count, char **words)
{
	size_t blocks = count > 2 ? (strtoul(words[1], NULL, 10) << 20) / 4016 : 0;
	long threads = count > 2 ? strtol(words[2], NULL, 10) : 0;
	pthread_attr_t small;
	pthread_t thread;
	char **all;

	all = calloc(blocks + 1, sizeof *all);
	for (size_t i = 0; i < blocks; i++)
		all[i] = memset(malloc(4000), 1, 4000);
	for (size_t i = 0; i < blocks; i += 3)
		free(all[i]);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 32768);
	for (long i = 0; i < threads; i++)
		if (pthread_create(&thread, &small, i ? sleeping : wake_up, NULL))
			return 1;
	return write(1, "\n", 1) != 1 || pause();
}
