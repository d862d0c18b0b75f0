"""/proc/meminfo: what the kernel counts for the whole machine."""

import re

from pagewalk.proc.files import decode_name, read_for_all, rows

PATH = "/proc/meminfo"
# "Active(anon):      440 kB" (meminfo_proc_show, fs/proc/meminfo.c; hugetlb_report_meminfo)
LINE = re.compile(rb"(?m)^([^ :\n]+): +(\d{1,20})( kB)?\n")


def parse_meminfo(text: bytes) -> dict[str, int]:
    """Return the lines of a meminfo file by the kernel's name, in bytes; raises BadText.

    The lines that count pages, ``HugePages_Total`` and the like, have no unit: they stay counts.
    """
    return {
        decode_name(name): int(value) << 10 if unit else int(value)
        for name, value, unit in rows(LINE, text, "meminfo")
    }


def read_meminfo() -> dict[str, int]:
    """Return the lines of /proc/meminfo as parse_meminfo does; raises SourceUnavailable, BadText.

    Any user may read it, unless /proc is mounted with subset=pid.
    """
    return parse_meminfo(read_for_all(PATH))
