"""/proc/vmstat: the counters behind meminfo, and events since boot; and how to make them exact."""

import re

from pagewalk.proc.files import decode_name, read_bytes, read_for_all, rows

PATH = "/proc/vmstat"
REFRESH = "/proc/sys/vm/stat_refresh"
LINE = re.compile(rb"(?m)^([^ \n]+) (\d{1,20})\n")


def parse_vmstat(text: bytes) -> dict[str, int]:
    """Return the counters in a vmstat file by the kernel's name; raises BadText.

    Those called ``nr_`` count pages, or KiB where meminfo says so (``nr_kernel_stack``); the others
    count events since boot. The kernel prints a counter that is negative for a moment as 0.
    """
    return {decode_name(name): int(value) for name, value in rows(LINE, text, "vmstat")}


def read_vmstat() -> dict[str, int]:
    """Return the counters of /proc/vmstat; raises SourceUnavailable, BadText.

    A counter lags by less than the threshold that zoneinfo shows, on each CPU and in each zone or
    node: see refresh. Any user may read it, unless /proc is mounted with subset=pid.
    """
    return parse_vmstat(read_for_all(PATH))


def refresh() -> bool:
    """Add what each CPU has counted to the counters of vmstat, zoneinfo and meminfo, as root.

    Returns whether the kernel did: only root may ask. It runs briefly on every CPU; nothing else
    changes. Source: vmstat_refresh, mm/vmstat.c.
    """
    try:
        read_bytes(REFRESH)
    except OSError:
        return False
    return True
