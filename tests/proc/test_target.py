"""What a held process reports about itself."""

from __future__ import annotations

import mmap
import os
import resource

from pagewalk.proc.target import open_target, parse_stat

# proc_pid_stat(5): minflt is the tenth field, majflt the twelfth; children's faults do not count.
STAT = b"7 (a) b) S 1 7 7 0 -1 4194304 11 1000 5 2000 1 2 3 4 20 0 3 0 99 8192 2"


def test_faults_are_the_sum_of_minor_and_major_faults() -> None:
    stat = parse_stat(STAT + b" 0" * 28 + b"\n")
    assert (stat.comm, stat.threads, stat.vsize, stat.rss, stat.faults) == ("a) b", 3, 8192, 2, 16)


def test_each_touched_page_is_a_fault() -> None:
    target = open_target(os.getpid())
    area = mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    before = target.faults()
    for page in range(64):
        area[page * mmap.PAGESIZE] = 1
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert before + 64 <= target.faults()
    assert usage.ru_minflt + usage.ru_majflt <= target.faults()
    target.close()
