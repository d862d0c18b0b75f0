/*
 * What every case of the zoo uses. A case creates some memory, reports as facts what is in each
 * region, and returns; main() then reports ready and serves commands until it is killed.
 *
 * A fact that is reported by a thread other than the first has its "tid" too.
 *
 * Counts are base pages. A region's counts by state (anon, file, shmem, zero, special, hugetlb,
 * swapped, guard, marker, poisoned, empty) add up to the region; other keys are details.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define PAGE 4096UL
#define PMD_PAGES 512UL
#define PMD_SIZE (PMD_PAGES * PAGE)
#define RW (PROT_READ | PROT_WRITE)
#define PRIVATE_ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define SHARED_ANON (MAP_SHARED | MAP_ANONYMOUS)

/* Missing from older kernel headers; the numbers are ABI. */
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

typedef void case_fn(char **args);
struct zoo_case {
	const char *name;
	case_fn *run;
};
extern const struct zoo_case anon_cases[], file_cases[], huge_cases[], mark_cases[],
	special_cases[], swap_cases[], task_cases[];

/* facts and words to the harness */
void fact(const char *region, const void *start, size_t pages, ...); /* "key", 1L, ..., NULL */
void say(const char *format, ...);                                   /* one JSON line */
void cannot(const char *what);                                       /* reports why, exits */
void check(int ok, const char *what);
extern void (*on_command)(const char *word); /* a case's own answer; NULL: answers {} */
void serve(void);                            /* ready, then commands; never returns */

/* memory */
char *place(size_t pages, size_t align); /* where to map with MAP_FIXED, away from the rest */
char *map(size_t pages, int flags, int fd, off_t offset);
char *map_huge(size_t pages, int flags, int fd); /* 2 MiB aligned, MADV_HUGEPAGE */
long write_pages(char *p, size_t from, size_t to, size_t step); /* returns how many */
void read_pages(const char *p, size_t from, size_t to, size_t step);
void stay(void); /* on this CPU: the kernel batches some work per CPU */
size_t count_present(const char *p, size_t pages); /* from our own pagemap */
int disk_file(const char *name, size_t pages);     /* in the page cache, in single-page folios */
int memory_file(const char *name, size_t pages);   /* memfd */
void page_out(char *p, size_t pages);              /* to the swap that the harness made */
long number(char **args, int i, long otherwise);

/* families */
pid_t child(void);       /* fork; the child dies with its parent */
void done(void);         /* the child has reported its facts; it waits to be killed */
void gather(int count);  /* wait until that many children are done */
