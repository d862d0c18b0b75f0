/* The zoo: one subcommand per case. tests/targets compiles it with the other .c files here. */
#include "zoo.h"
#include <sys/prctl.h>
#include <sched.h>
#include <signal.h>

void (*on_command)(const char *word);
static int done_pipe[2];

void say(const char *format, ...)
{
	char line[4096];
	va_list args;

	va_start(args, format);
	int n = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	line[n++] = '\n';
	/* One write below PIPE_BUF: lines from a family never mix, and no stdio buffer is forked. */
	if (write(1, line, n) != n)
		_exit(3);
}

void fact(const char *region, const void *start, size_t pages, ...)
{
	char counts[2048] = "";
	size_t n = 0;
	va_list args;

	if (gettid() != getpid())
		n = snprintf(counts, sizeof(counts), ", \"tid\": %d", gettid());
	va_start(args, pages);
	for (const char *key; (key = va_arg(args, const char *));)
		n += snprintf(counts + n, sizeof(counts) - n, ", \"%s\": %ld", key,
			      va_arg(args, long));
	va_end(args);
	say("{\"%s\": {\"pid\": %d, \"start\": %lu, \"end\": %lu%s}}", region, getpid(),
	    (uintptr_t)start, (uintptr_t)start + pages * PAGE, counts);
}

void cannot(const char *what)
{
	say("{\"cannot\": \"%s: %s\"}", what, strerror(errno));
	_exit(1);
}

void check(int ok, const char *what)
{
	if (!ok)
		cannot(what);
}

long number(char **args, int i, long otherwise)
{
	for (int k = 0; k <= i; k++)
		if (!args[k])
			return otherwise;
	return atol(args[i]);
}

/* Adjacent mappings would merge into one VMA, so each has a PROT_NONE page on both sides. */
char *place(size_t pages, size_t align)
{
	size_t whole = pages * PAGE + align + 2 * PAGE;
	char *p = mmap(NULL, whole, PROT_NONE, PRIVATE_ANON | MAP_NORESERVE, -1, 0);

	check(p != MAP_FAILED, "reserve address space");
	return (char *)(((uintptr_t)p + PAGE + align - 1) & ~(align - 1));
}

char *map(size_t pages, int flags, int fd, off_t offset)
{
	/* 64 KiB alignment: fault-around maps aligned windows of that size. */
	char *p = mmap(place(pages, 16 * PAGE), pages * PAGE, RW, flags | MAP_FIXED, fd, offset);

	check(p != MAP_FAILED, "mmap");
	if (flags & MAP_ANONYMOUS)
		madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
	return p;
}

char *map_huge(size_t pages, int flags, int fd)
{
	char *p = mmap(place(pages, PMD_SIZE), pages * PAGE, RW, flags | MAP_FIXED, fd, 0);

	check(p != MAP_FAILED, "mmap");
	check(!madvise(p, pages * PAGE, MADV_HUGEPAGE), "madvise(MADV_HUGEPAGE)");
	return p;
}

long write_pages(char *p, size_t from, size_t to, size_t step)
{
	long written = 0;

	/* Different in every page, so that KSM finds no duplicates; never zero. */
	for (size_t i = from; i < to; i += step, written++)
		*(volatile uint64_t *)(p + i * PAGE) = i + 1;
	return written;
}

void read_pages(const char *p, size_t from, size_t to, size_t step)
{
	for (size_t i = from; i < to; i += step)
		(void)*(const volatile char *)(p + i * PAGE);
}

void stay(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	check(!sched_setaffinity(0, sizeof(one), &one), "sched_setaffinity");
}

size_t count_present(const char *p, size_t pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	size_t present = 0;
	uint64_t entry;

	check(fd >= 0, "open /proc/self/pagemap");
	for (size_t i = 0; i < pages; i++) {
		off_t at = ((uintptr_t)p / PAGE + i) * sizeof(entry);
		check(pread(fd, &entry, sizeof(entry), at) == sizeof(entry), "read pagemap");
		present += entry >> 63;
	}
	close(fd);
	return present;
}

int disk_file(const char *name, size_t pages)
{
	char page[PAGE];
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	check(fd >= 0, "create a file");
	memset(page, 'f', sizeof(page));
	/* Page by page: a large write creates large folios, and a fault may map a whole folio. */
	for (size_t i = 0; i < pages; i++)
		check(pwrite(fd, page, PAGE, i * PAGE) == (ssize_t)PAGE, "write a file");
	return fd;
}

int memory_file(const char *name, size_t pages)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	check(fd >= 0 && !ftruncate(fd, pages * PAGE), "memfd_create");
	return fd;
}

pid_t child(void)
{
	pid_t parent = getpid(), pid = fork();

	check(pid >= 0, "fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	say("{\"joins\": %d}", getpid());
	return 0;
}

void done(void)
{
	check(write(done_pipe[1], "", 1) == 1, "tell the parent");
	for (;;)
		pause();
}

void gather(int count)
{
	char byte;

	while (count--)
		check(read(done_pipe[0], &byte, 1) == 1, "wait for a child");
}

static void obey(const char *word)
{
	if (!strcmp(word, "exit"))
		_exit(0);
	if (!strcmp(word, "exec"))
		execlp("sleep", "sleep", "3600", NULL);
	if (on_command)
		on_command(word);
	else
		say("{}");
}

void serve(void)
{
	char word[64];
	size_t n = 0;

	say("{\"ready\": 1}");
	/* read(2) rather than stdio: the heap stays as the case left it. */
	while (n < sizeof(word) && read(0, word + n, 1) == 1) {
		if (word[n++] != '\n')
			continue;
		word[n - 1] = 0;
		obey(word);
		n = 0;
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	const struct zoo_case *groups[] = { anon_cases, file_cases, huge_cases, mark_cases,
					    special_cases, swap_cases, task_cases };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	check(!pipe2(done_pipe, O_CLOEXEC), "pipe");
	for (size_t g = 0; argc > 1 && g < sizeof(groups) / sizeof(*groups); g++)
		for (const struct zoo_case *c = groups[g]; c->name; c++)
			if (!strcmp(c->name, argv[1])) {
				c->run(argv + 2);
				serve();
			}
	errno = EINVAL;
	cannot("no such case");
}
