"""One valid input for each parser, as the kernel or a person writes it."""

from __future__ import annotations

import gzip
import struct

from tests.kernel import btf_writer
from tests.kernel.btf_writer import BtfWriter
from tests.kernel.core_file import core, note

MAPS = b"""\
55d1a2c4e000-55d1a2c50000 r--p 00000000 fe:00 1311                       /usr/bin/sleep
55d1be1c3000-55d1be1e4000 rw-p 00000000 00:00 0                          [heap]
7f1c00000000-7f1c00001000 rw-s 00000000 00:01 1030                       /memfd:a b (deleted)
7f1c00001000-7f1c00002000 r--p 00001000 fe:00 77                         /tmp/new\\012line\rx\xff
7f1c00003000-7f1c00004000 rw-p 00000000 00:00 0 \n\
7f1c10000000-7f1c10002000 r-xp 00000000 fe:00 90                         /usr/lib/libc.so.6
7ffc5b5f0000-7ffc5b5f4000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""
SMAPS = b"""\
55d1be1c3000-55d1be1e4000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
KernelPageSize:        4 kB
Rss:                  12 kB
Pss:                   7 kB
THPeligible:           0
ProtectionKey:         0
VmFlags: rd wr mr mw me ac lo \n\
7f1c00001000-7f1c00002000 r--p 00001000 fe:00 77                         /tmp/Rss: 9 kB
Size:                  4 kB
Rss:                   4 kB
Locked:                0 kB
VmFlags: rd mr mw me \n\
"""
ROLLUP = b"""\
55d1a2c4e000-7ffc5b5f4000 ---p 00000000 00:00 0                          [rollup]
Rss:                1800 kB
Pss:                  97 kB
"""
# So many that they are parsed together (see proc/smaps.py), and one that has more lines.
BLOCK = b"""\
%x-%x rw-p 00000000 fe:00 7                          /tmp/a\rb: 4 kB
Size:                132 kB
Rss:                  %2d kB
Pss:                   7 kB
THPeligible:           0
VmFlags: rd wr mr \n\
"""
MANY = b"".join(BLOCK % (at << 13, (at << 13) + 4096, at) for at in range(1, 40)) + SMAPS
STATUS = b"""\
Name:\ta b: 4 kB\r\xff
Umask:\t0022
State:\tS (sleeping)
Tgid:\t4711
Pid:\t4711
Uid:\t0\t0\t0\t0
Groups:\t \n\
VmPeak:\t    5604 kB
VmRSS:\t    1532 kB
VmPTE:\t      44 kB
HugetlbPages:\t       0 kB
Threads:\t1
CapEff:\t000001ffffffffff
Seccomp:\t0
"""
STAT = (
    b"4711 (a) S 1 (b) S 1 4711 4711 0 -1 4194304 85 0 0 0 0 0 0 0 20 0 3 0 987654 5738496 383"
    b" 18446744073709551615 94354 94370 140722 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 1 2 3 4 5 6 7 0\n"
)
STATM = b"1401 383 371 5 0 85 0\n"
MOUNTINFO = b"""\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /proc rw,nosuid shared:5 master:1 - proc proc rw,hidepid=2
33 21 0:33 /a\\040b /mnt/a\rb\xff rw shared:4 - tmpfs  rw,size=4k
"""
SWAPS = b"""\
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/zram0                              partition\t262140\t\t4\t\t100
/swap/a\\040b\r\xff                       file\t\t1020\t\t0\t\t-2
"""
ZONEINFO = b"""\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 1
  pages free     2814
        boost    0
        min      30
        low      37
        high     44
        spanned  4095
        present  3998
        managed  3840
        protection: (0, 1872, 3894, 3894, 3894)
  pagesets
    cpu: 0
              count:    7
              high:     1442
  vm stats threshold: 4
  start_pfn:           1
Node 1, zone   Device
  pages free     0
        min      0
        low      0
        high     0
        spanned  65536
        present  0
        managed  0
"""
MEMINFO = b"""\
MemTotal:       24710388 kB
Active(anon):        440 kB
HugePages_Total:       3
Hugepagesize:       2048 kB
"""
VMSTAT = b"""\
nr_free_pages 5415284
nr_kernel_stack 1504
numa_hit 1885507671
"""
MEMBER = b"""\
Name:\ta\\nb c
Umask:\t0022
State:\tS (sleeping)
Tgid:\t7
VmRSS:\t   20112 kB
RssAnon:\t   10892 kB
RssFile:\t    9216 kB
RssShmem:\t       4 kB
VmData:\t   11004 kB
VmSwap:\t     512 kB
HugetlbPages:\t       0 kB
Threads:\t1
"""
KMSG = b"""\
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,\
task_memcg=/a/b,task=python,pid=168,uid=0
Memory cgroup out of memory: Killed process 168 (python) total-vm:79472kB, anon-rss:3916kB,\
 file-rss:5868kB, shmem-rss:64000kB, UID:0 pgtables:192kB oom_score_adj:0
"""
MEMBERSHIP = b"""\
9:name=systemd:/
4:memory:/a/b c
2:cpu,cpuacct:/a:b
0::/user.slice/x.scope (deleted)
"""
MEMORY_STAT = b"anon 12288\nfile 4096\nworkingset_refault_file 3014\n"
MEMORY_PRESSURE = b"""\
some avg10=0.00 avg60=0.12 avg300=0.00 total=5012
full avg10=0.00 avg60=0.00 avg300=0.00 total=12
"""
SLABINFO = b"""\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
dentry            104600 104622    192   21    1 : tunables    0    0    0 : slabdata   4981   4982      0
a module's cache\xc2\xa0     12     12   8192    4    8 : tunables    0    0    0 : slabdata      2      2      0
"""  # noqa: E501
BUFINFO = b"""
Dma-buf Objects:
size    \tflags   \tmode    \tcount   \texp_name\tino     \tname
00004096\t00080002\t00080007\t00000002\tudmabuf\t00000007\t<none>
\tAttached Devices:
Total 0 devices attached

08294400\t00080002\t00080007\t00000003\ti915\t00000012\ta b\x1b[1m
\tkernel fence: 00004096\ti915 signalled
\tAttached Devices:
\t0000:00:02.0
Total 1 devices attached


Total 2 objects, 8298496 bytes
"""
CONFIG = b"""\
#
# Linux/x86 6.18.0 Kernel Configuration
#
CONFIG_MIGRATION=y
# CONFIG_KSM is not set
"""
CONFIG_GZ = gzip.compress(CONFIG, mtime=0)
KALLSYMS = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff82a0f640 D init_task
ffffffffc0000000 t a\t[module]
"""
WORDS = struct.pack(
    "<8Q", 1 << 63 | 0x1234, 1 << 63 | 1 << 61 | 1 << 56 | 5, 1 << 62 | 3 << 5 | 31, 0, 1 << 57,
    1 << 55, (1 << 64) - 1, 1 << 58,
)
WHERE = (b"anon,~ksm", b"mapcount>1", b"pfn=0x1234, present", b"~exclusive", b"MAPCOUNT != 3")
ADDRESSES = (b"7f1c10000000", b"stack-8", b"heap+0x1000", b"libc.so.6+0x10", b"0xFFFFFFFFFF600000")
RANGES = (b"7f1c00000000-7f1c10002000", b"0x0-0x1000000000000", b"55d1be1c3000-55d1be1c3001")

TYPES = ("outer", "inner", "ulong", "colour", "wide", "page")
MEMBERS = (
    ("outer", "flags"), ("outer", "ptr"), ("outer", "hi"), ("outer", "in.grid"),
    ("outer", "second"), ("outer", "tail"), ("page", "_mapcount"), ("last", "only"),
)
ENUMS = ("colour", "wide", "pageflags", "pagetype")


def btf() -> tuple[bytes, ...]:
    """Return a BTF with every kind of type, and the little that page_layout needs."""
    w = BtfWriter()
    u64, u32, u8 = w.integer("unsigned long", 8), w.integer("u32", 4), w.integer("u8", 1)
    ulong = w.add("ulong", btf_writer.TYPEDEF, 0, 0, u64)
    pointer = w.add("", btf_writer.PTR, 0, 0, 0)
    grid = w.array(w.array(u8, u32, 3), u32, 2)
    inner = w.members("inner", 12, ("x", u32, 0), ("grid", grid, 32))
    pair = w.members("", 8, ("lo", u32, 0), ("hi", u32, 32))
    either = w.members("", 8, ("ptr", pointer, 0), ("", pair, 0), kind=btf_writer.UNION)
    const = w.add("", btf_writer.CONST, 0, 0, inner)
    w.members(
        "outer", 32, ("flags", ulong, 0), ("", either, 64), ("in", const, 128),
        ("first", u32, 3 << 24 | 224), ("second", u32, 9 << 24 | 227),
        ("tail", w.array(u64, u32, 0), 256), flag=1,
    )
    w.enum("colour", RED=0, GREEN=7, GONE=-1)
    w.enum("", NAMELESS=42)
    w.enum64("wide", TOP=1 << 63, LOW=1)
    proto = w.add("", btf_writer.FUNC_PROTO, 2, 0, u32, w.name("a"), u32, w.name("b"), u64)
    w.add("outer", btf_writer.FUNC, 0, 0, proto)
    variable = w.add("percpu", btf_writer.VAR, 0, 0, u64, 1)
    w.add(".data", btf_writer.DATASEC, 1, 0, 8, variable, 0, 8)
    w.members(
        "page", 64, ("flags", u64, 0), ("compound_head", u64, 64), ("_mapcount", u32, 384),
        ("_refcount", u32, 416),
    )
    w.members(
        "folio", 256, ("mapping", pointer, 192), ("_entire_mapcount", u32, 704),
        ("_large_mapcount", u32, 672),
    )
    w.enum("pageflags", PG_locked=0, PG_head=6, PG_swapbacked=18, __NR_PAGEFLAGS=24)
    w.enum("pagetype", PGTY_offline=0xF2, PGTY_table=0xF4, PGTY_slab=0xF5, PGTY_hugetlb=0xF6)
    w.members("last", 4, ("only", u32, 0))
    return (w.blob(),)


JVM = b"""\
 def new generation   total 19648K, used 684K [0x00000000fc000000, 0x00000000fd550000)
 garbage-first heap   total reserved 65536K, committed 32768K, used 2K [0xfc000000, 0xfd000000)
 ZHeap           used 48M, capacity 64M, max capacity 128M
 65536K max, 65536K soft max, 32768K committed, 22684K used
  Non-class:  8235176 bytes used.
  Non-class space:  67108864 bytes reserved, 8323072 bytes ( 12%) committed,  1 nodes.
CodeHeap 'non-nmethods': size=5692Kb used=1245Kb max_used=1258Kb free=4446Kb
 bounds [0x00007fe1343ff000, 0x00007fe13466f000, 0x00007fe13b938000]
CodeCache: size=245764Kb, used=3118Kb, max_used=3131Kb, free=242643Kb
-                 Java Heap (reserved=67108864, committed=67108864)
"""


def core_file() -> bytes:
    """Return a core file with two segments and VMCOREINFO lines."""
    info = b"OSRELEASE=6.1.0\nSIZE(page)=64\n\xff=1\n"
    notes = note(b"CORE", b"prstatus") + note(b"VMCOREINFO", info)
    return core([(0xFFFF888000000000, bytes(64)), (0xFFFFEA0000000000, bytes(range(64)))], notes)


def tables() -> tuple[bytes, ...]:
    """Return entries as fuzz.walk_tables reads them: table, slot, and the entry's eight bytes."""
    table, page, huge, soft = 0x67, 0x67, 0xE7, 3 << 59 | (~5 & (1 << 50) - 1) << 9
    down = [(at, 0, 0x1000 * (at + 2) | table) for at in range(4)]
    ends = [(3, 1, 0x7000 | page), (3, 2, soft), (2, 1, 0x200000 | huge), (1, 1, 0x5000 | table)]
    ends += [(2, 2, 0x1000 | table), (4, 0, 0x6000 | table), (5, 1, 0x120 | 0x3000)]
    return (b"".join(struct.pack("<BBQ", *entry) for entry in down + ends),)
