/* Processes and threads in awkward states, and other programs. */
#include "zoo.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define FEW 32

static void touched(const char *name)
{
	char *p = map(FEW, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, FEW, 1);
	fact(name, p, FEW, "anon", (long)FEW, NULL);
}

static void spawn(void *(*run)(void *), void *what)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run, what);
	check(!errno, "pthread_create");
}

/* Field number `index` of a file of numbers, without touching new memory. */
static long number_at(const char *path, int index)
{
	char text[1024], *at = text;
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	check(n > 0, path);
	close(fd);
	text[n] = 0;
	while (index-- && at)
		at = strchr(at + 1, ' ');
	check(at != NULL, path);
	return atol(at);
}

/* Faults that the kernel has counted on one CPU only: the rss of stat omits them, statm does not. */
static void batching(char **args)
{
	long pages = 256;
	char *p = map(pages, PRIVATE_ANON, -1, 0);

	stay();
	/* Map the parts of libc that fact() needs now, not after the count. */
	fact("memory", p, pages, NULL);
	for (long i = 0; i < pages; i++) {
		write_pages(p, i, i + 1, 1);
		long statm = number_at("/proc/self/statm", 1);
		long stat = number_at("/proc/self/stat", 23);
		/* Half of the smallest batch of a percpu counter. */
		if (statm - stat < 16)
			continue;
		fact("memory", p, pages, "anon", i + 1, "empty", pages - i - 1, NULL);
		return;
	}
	errno = ENOTSUP;
	cannot("make stat and statm differ");
}

static void *sleep_on(void *unused)
{
	for (;;)
		pause();
}

static void threads(char **args)
{
	touched("memory");
	for (int i = 0; i < 8; i++)
		spawn(sleep_on, NULL);
	say("{\"threads\": {\"pid\": %d, \"count\": 9}}", getpid());
}

#define DEEP 256 /* pages */
static int deep_threads;

static int descend(int pages)
{
	volatile char frame[PAGE];

	frame[0] = 1;
	return pages > 1 ? descend(pages - 1) + frame[0] : frame[0];
}

static void *descend_and_wait(void *unused)
{
	check(descend(DEEP) == DEEP, "descend");
	__atomic_add_fetch(&deep_threads, 1, __ATOMIC_SEQ_CST);
	return sleep_on(unused);
}

/* Each thread has used DEEP pages of its stack, and waits far above them. */
static void deep(char **args)
{
	for (int i = 0; i < 3; i++)
		spawn(descend_and_wait, NULL);
	while (__atomic_load_n(&deep_threads, __ATOMIC_SEQ_CST) < 3)
		usleep(1000);
	say("{\"stacks\": {\"pid\": %d, \"deep\": %d, \"threads\": 3}}", getpid(), DEEP);
}

static void *serve_for(void *leader)
{
	char path[64], state = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	while (state != 'Z') {
		FILE *file = fopen(path, "r");
		check(file && fscanf(file, "%*d (%*[^)]) %c", &state) == 1, path);
		fclose(file);
		usleep(1000);
	}
	/* Called by this thread: only its id still leads to the address space. */
	touched("memory");
	serve();
	return NULL;
}

/* /proc/PID looks like that of a dead process, /proc/PID/task/TID does not. */
static void leader_dead(char **args)
{
	spawn(sleep_on, NULL);
	spawn(serve_for, NULL);
	syscall(SYS_exit, 0);
}

static void zombie(char **args)
{
	siginfo_t info;
	pid_t pid = child();

	if (!pid)
		_exit(0);
	check(!waitid(P_PID, pid, &info, WEXITED | WNOWAIT), "waitid");
	touched("parent");
	say("{\"zombie\": {\"pid\": %d}}", pid);
}

static int say_and_wait(void *region)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	say("{\"joins\": %d}", getpid());
	fact("child", region, FEW, "anon", (long)FEW, NULL);
	done();
	return 0;
}

/* Two processes, one address space: its pages must not be counted twice. */
static void shared_mm(char **args)
{
	char *p = map(FEW, PRIVATE_ANON, -1, 0);
	char *stack = map(32, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, FEW, 1);
	check(clone(say_and_wait, stack + 32 * PAGE, CLONE_VM | SIGCHLD, p) > 0, "clone");
	gather(1);
	fact("parent", p, FEW, "anon", (long)FEW, NULL);
}

/* Blanks, a parenthesis, a state letter and a newline, within the 15 bytes of a name. */
static void odd_name(char **args)
{
	check(!prctl(PR_SET_NAME, "a) R\n(deleted)"), "prctl(PR_SET_NAME)");
	touched("memory");
	say("{\"comm\": {\"pid\": %d, \"name\": \"a) R\\n(deleted)\"}}", getpid());
}

static void nobody(char **args)
{
	uid_t id = number(args, 0, 65534);

	touched("memory");
	check(!setresgid(id, id, id) && !setresuid(id, id, id), "setresuid");
	/* The change of user cleared both. */
	prctl(PR_SET_DUMPABLE, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void undumpable(char **args)
{
	nobody(args);
	check(!prctl(PR_SET_DUMPABLE, 0), "prctl(PR_SET_DUMPABLE)");
}

static void *map_and_unmap(void *arena)
{
	/* Up to 4 MiB at varying addresses: page tables of two levels come and go. */
	for (unsigned i = 0;; i++) {
		size_t pages = 1 + i * 37 % 1024;
		char *at = (char *)arena + i * 61 % 1024 * PAGE;
		/* All of it is in the arena, which is too small for another thread's stack. */
		char *p = mmap(at, pages * PAGE, RW, PRIVATE_ANON | MAP_FIXED, -1, 0);

		check(p != MAP_FAILED, "mmap");
		/* A freed table that is reused for this data shows impossible frames. */
		memset(p, 0xff, pages * PAGE);
		check(!munmap(p, pages * PAGE), "munmap");
	}
	return NULL;
}

static void churn(char **args)
{
	long count = number(args, 0, 1);

	touched("memory");
	for (long i = 0; i < count; i++) {
		char *arena = place(2048, PMD_SIZE);
		char name[16];

		spawn(map_and_unmap, arena);
		snprintf(name, sizeof(name), "arena%ld", i);
		fact(name, arena, 2048, NULL);
	}
}

/* Maps one or a few pages at a time, without pause: VMAs come and go, merge and split. */
static void *flicker(void *arena)
{
	for (unsigned i = 0;; i++) {
		size_t pages = 1 + i * 7 % 16;
		char *at = (char *)arena + i * 37 % 480 * PAGE;
		char *p = mmap(at, pages * PAGE, i & 1 ? RW : PROT_READ, PRIVATE_ANON | MAP_FIXED, -1, 0);

		check(p != MAP_FAILED, "mmap");
		if (i & 1)
			*p = 1;
		if (i % 5)
			check(!munmap(p, pages * PAGE), "munmap");
	}
	return NULL;
}

/* Forks children that map, and then exec another program that maps and exits. */
static void *forks(void *arena)
{
	for (;;) {
		pid_t pid = fork();

		check(pid >= 0, "fork");
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (int i = 0; i < 64; i++)
				mmap((char *)arena + i * 2 * PAGE, PAGE, RW, PRIVATE_ANON | MAP_FIXED, -1, 0);
			execl("/proc/self/exe", "zoo", "brief", NULL);
			_exit(1);
		}
		waitpid(pid, NULL, 0);
	}
	return NULL;
}

/* Lives for 50 ms. */
static void brief(char **args)
{
	spawn(flicker, place(512, PMD_SIZE));
	usleep(50000);
	_exit(0);
}

static void storm(char **args)
{
	long count = number(args, 0, 2), families = number(args, 1, 1), still = number(args, 2, 3000);
	long swapped = number(args, 3, 0);
	char *p = map(still, PRIVATE_ANON, -1, 0);

	touched("memory");
	if (swapped) {
		char *q = map(swapped, MAP_SHARED, memory_file("swapped", swapped), 0);

		write_pages(q, 0, swapped, 1);
		page_out(q, swapped);
		fact("swapped", q, swapped, "empty", swapped, "shmem_swapped", swapped, NULL);
	}
	for (long i = 0; i < still; i += 2)
		check(!mprotect(p + i * PAGE, PAGE, PROT_READ), "mprotect");
	for (long i = 0; i < count; i++)
		spawn(flicker, place(512, PMD_SIZE));
	for (long i = 0; i < families; i++)
		spawn(forks, place(512, PMD_SIZE));
}

static _Atomic long worst_ns, rounds;

static long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void *measure_stalls(void *unused)
{
	for (;;) {
		long begin = now_ns(), took;
		char *p = mmap(NULL, PAGE, RW, PRIVATE_ANON, -1, 0);

		check(p != MAP_FAILED && !munmap(p, PAGE), "mmap and munmap");
		took = now_ns() - begin;
		if (took > worst_ns)
			worst_ns = took;
		rounds++;
		/* Sleep most of the time, so that the scheduler runs it at once when it wakes. */
		usleep(50);
	}
	return NULL;
}

static void report_stalls(const char *word)
{
	say("{\"worst_ns\": %ld, \"rounds\": %ld}", worst_ns, rounds);
	worst_ns = rounds = 0;
}

/* A thread takes mmap_lock for writing; any command reports the worst wait and resets it. */
static void mapper(char **args)
{
	long pages = number(args, 0, 64) << 8; /* MiB */
	char *p = map(pages, PRIVATE_ANON, -1, 0);

	write_pages(p, 0, pages, 1);
	fact("dense", p, pages, "anon", pages, NULL);
	on_command = report_stalls;
	spawn(measure_stalls, NULL);
}

/* Becomes another program, which also dies with the harness. */
static void run(char **args)
{
	execvp(args[0], args);
	cannot(args[0]);
}

static void run_quietly(char **args)
{
	check(dup2(open("/dev/null", O_WRONLY), 1) == 1, "open /dev/null");
	run(args);
}

const struct zoo_case task_cases[] = {
	{ "batching", batching },   { "threads", threads },     { "leader_dead", leader_dead }, { "zombie", zombie },
	{ "deep", deep },
	{ "shared_mm", shared_mm }, { "odd_name", odd_name },       { "undumpable", undumpable },
	{ "nobody", nobody },       { "churn", churn },             { "mapper", mapper },
	{ "storm", storm },         { "brief", brief },
	{ "run", run },             { "run_quietly", run_quietly }, { NULL, NULL },
};
