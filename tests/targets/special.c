/*
 * Pages that a driver put into the address space. The kernel counts those with a normal struct
 * page as file pages (MIXEDMAP), and does not count those without (PFNMAP).
 */
#include "zoo.h"
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <net/ethernet.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

static char *map_shared(int fd, size_t pages, off_t offset)
{
	char *p = mmap(place(pages, PAGE), pages * PAGE, RW, MAP_SHARED | MAP_FIXED, fd, offset);

	check(p != MAP_FAILED, "mmap");
	return p;
}

/* VM_PFNMAP: pagemap and smaps show nothing, though each page has an entry. */
static void perf_ring(char **args)
{
	struct perf_event_attr event = { .type = PERF_TYPE_SOFTWARE,
					 .size = sizeof(event),
					 .config = PERF_COUNT_SW_DUMMY };
	int fd = syscall(SYS_perf_event_open, &event, 0, -1, -1, 0);
	char *p;

	check(fd >= 0, "perf_event_open");
	p = map_shared(fd, 9, 0);
	read_pages(p, 0, 9, 1);
	fact("ring", p, 9, "special", 9L, NULL);
}

static void packet_ring(char **args)
{
	struct tpacket_req ring = { .tp_block_size = 4 * PAGE,
				    .tp_block_nr = 4,
				    .tp_frame_size = 2048,
				    .tp_frame_nr = 32 };
	/* With protocol 0 it receives nothing. */
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	char *p;

	check(fd >= 0, "socket(AF_PACKET)");
	check(!setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)), "PACKET_RX_RING");
	p = map_shared(fd, 16, 0);
	fact("ring", p, 16, "file", 16L, NULL);
}

static void io_uring(char **args)
{
	struct io_uring_params setup = { 0 };
	int fd = syscall(SYS_io_uring_setup, 256, &setup);
	char *p;

	check(fd >= 0, "io_uring_setup");
	/* 256 entries of 64 bytes: four pages. io_uring does not let us choose the address. */
	p = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, IORING_OFF_SQES);
	check(p != MAP_FAILED, "mmap");
	fact("entries", p, 4, "file", 4L, NULL);
}

static void bpf_array(char **args)
{
	union bpf_attr array = { .map_type = BPF_MAP_TYPE_ARRAY,
				 .key_size = 4,
				 .value_size = 8 * PAGE,
				 .max_entries = 1,
				 .map_flags = BPF_F_MMAPABLE };
	int fd = syscall(SYS_bpf, BPF_MAP_CREATE, &array, sizeof(array));
	char *p;

	check(fd >= 0, "bpf(BPF_MAP_CREATE)");
	p = map_shared(fd, 8, 0);
	fact("array", p, 8, "file", 8L, NULL);
}

/* Removed from the kernel's direct map; locked, and counted as file. */
static void secret(char **args)
{
	int fd = syscall(SYS_memfd_secret, 0);
	char *p;

	check(fd >= 0 && !ftruncate(fd, 32 * PAGE), "memfd_secret");
	p = map_shared(fd, 32, 0);
	write_pages(p, 0, 16, 1);
	fact("secret", p, 32, "file", 16L, "empty", 16L, "locked", 16L, NULL);
}

const struct zoo_case special_cases[] = {
	{ "perf_ring", perf_ring }, { "packet_ring", packet_ring }, { "io_uring", io_uring },
	{ "bpf_array", bpf_array }, { "secret", secret },           { NULL, NULL },
};
