"""What a translation means beyond its bits: sentences for people who ask why.

Pure. The rules are those of the kernel's fault handler (mm/memory.c) and of fs/proc/task_mmu.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from pagewalk.pages import EXEC, READ, SHARED, WRITE, Backing, Flag, State, VMAs
from pagewalk.vtop import Translation

UNITS = ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"))

STATES = {
    State.ZERO: "This is the shared zero page, or the huge one: read, never written. It is in no"
    " RSS, and a write gets a page of its own.",
    State.SPECIAL: "No normal struct page stands behind it (a PFN map, or kernel memory mapped by"
    " hand): it is in no RSS.",
    State.HUGETLB: "A hugetlb page: it is in HugetlbPages and in no RSS.",
    State.MIGRATING: "The page is being moved: the frame above is where it was, a touch waits for"
    " the end of the move, and it counts as RSS all the while.",
    State.GUARD: "A guard region (MADV_GUARD_INSTALL): a touch raises SIGSEGV. No memory stands"
    " behind it, and no counter counts it, swap included.",
    State.POISONED: "Poisoned, by broken memory or by UFFDIO_POISON: a touch raises SIGBUS.",
    State.MARKER: "A marker, which keeps a page's userfaultfd state while there is no page; no"
    " counter counts it, swap included.",
    State.DEVICE: "Device memory: the CPU's touch brings the page back first.",
}


def amount(size: int) -> str:
    """Return a size in bytes in its largest unit: ``2 MiB``, ``16.4 GiB``, ``1 byte``."""
    for shift, unit in UNITS:
        if size >> shift:
            return f"{size / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} byte" + ("" if size == 1 else "s")


def remarks(found: Translation) -> tuple[str, ...]:
    """Return what is to be said of ``found``, most important first."""
    return (*about_doubt(found), *about_vma(found), *about_page(found), *about_rights(found),
            *about_hole(found))


def about_doubt(found: Translation) -> Iterator[str]:
    last = found.trace.last
    if last.doubt is not None:
        yield (
            f"No kernel writes such a {last.level.name} entry: {last.doubt.label}. The tables"
            " changed under the reading, or are broken."
        )
    if not found.stable:
        yield (
            "The entries changed between readings, so these may be of different moments; --freeze"
            " stops the process for the time."
        )
    if found.pagemap.agrees is False:
        yield f"pagemap says something else: {found.pagemap.why}."


def about_vma(found: Translation) -> Iterator[str]:
    addr = found.trace.addr
    if found.row is not None and found.vmas.gate[found.row]:
        yield (
            "The gate VMA, the same in every process: where no page stands behind it, the kernel"
            " emulates a call to it."
        )
    elif addr >= found.arch.user_end:
        yield (
            "It lies in the kernel's half of the address space, which hangs on the same root and is"
            " the same in every process; user mode cannot use it."
        )
    if found.row is None and addr < found.arch.user_end:
        yield f"It lies in no VMA, so a touch raises SIGSEGV{neighbours(found.vmas, addr)}."


def neighbours(vmas: VMAs, addr: int) -> str:
    """Return how far the nearest VMA on each side is."""
    sides = []
    below = [row for row in range(len(vmas)) if int(vmas.end[row]) <= addr]
    above = [row for row in range(len(vmas)) if int(vmas.start[row]) > addr]
    if below:
        distance = addr - int(vmas.end[below[-1]])
        sides.append(f"{called(vmas, below[-1])} ends {distance:#x} below it")
    if above:
        distance = int(vmas.start[above[0]]) - addr
        sides.append(f"{called(vmas, above[0])} begins {distance:#x} above it")
    return "; " + ", ".join(sides) if sides else ""


def called(vmas: VMAs, row: int) -> str:
    """Return a VMA's name, or what an unnamed one is."""
    return vmas.name[row] or f"an anonymous VMA ({int(vmas.start[row]):#x})"


def about_page(found: Translation) -> Iterator[str]:
    last = found.trace.last
    if found.state in STATES:
        yield STATES[found.state]
    if Flag.PROT_NONE in last.flags:
        why = "as a NUMA hint" if grants(found) else "because the VMA grants no access (PROT_NONE)"
        yield (
            f"Bit 0 is clear and bit 8 set: the page is there, but a touch faults, {why}. The"
            " frame's bits are stored inverted, against L1TF."
        )
    if Flag.SWAP in last.flags:
        yield "The page is on swap: a touch reads it back, into another frame."
    if found.trace.present and last.size > 1 << found.arch.page_shift:
        names = [level.name for level in found.arch.levels if level.number < last.level.number]
        yield (
            f"A huge page: the {last.level.name} entry maps {amount(last.size)} itself, so the bits"
            f" that would select a {' and a '.join(names)} belong to the offset."
        )


def grants(found: Translation) -> bool:
    """Return whether the VMA grants any access at all."""
    return found.row is not None and bool(
        int(found.vmas.perms[found.row]) & (READ | WRITE | EXEC)
    )


def about_rights(found: Translation) -> Iterator[str]:
    last, row = found.trace.last, found.row
    if last.taken and found.trace.present:
        lost = " and ".join(str(flag.name).lower() for flag in last.taken)
        yield (
            f"The {last.level.name} entry grants {lost}, a table above it does not: the CPU asks"
            " them all."
        )
    if not found.trace.present or row is None or Flag.PROT_NONE in last.flags:
        return
    perms = int(found.vmas.perms[row])
    special = found.state in (State.ZERO, State.SPECIAL)
    if perms & WRITE and Flag.WRITE not in last.rights and not special:
        yield write_fault(found, shared=bool(perms & SHARED))


def write_fault(found: Translation, *, shared: bool) -> str:
    """Return why a writable VMA has a read-only entry, and what a write does."""
    why = "The VMA may be written, this entry may not: a write faults, and "
    if Flag.UFFD_WP in found.trace.last.flags:
        return why + "userfaultfd is told, which write-protected it."
    if shared:
        return why + "the kernel notes that the file's page is dirty."
    if found.state is State.ANON and found.frame is not None and found.frame.mapcount == 1:
        return why + "copy-on-write takes the page over, or copies it if others still refer to it."
    return why + "copy-on-write gives this process a copy of the page."


def about_hole(found: Translation) -> Iterator[str]:
    if not found.trace.none or found.row is None or found.trace.addr >= found.arch.user_end:
        return
    last = found.trace.last
    if last.level.number == 1:
        yield "The page table is there, this slot of it is empty: never touched, or given back."
    else:
        yield (
            f"The {last.level.name} entry is empty: no table below it exists, and nothing is mapped"
            f" in the {amount(last.size)} it stands for."
        )
    if not grants(found):
        yield "The VMA grants no access: a touch raises SIGSEGV and makes no page."
        return
    missing = [level.name for level in found.arch.levels if level.number < last.level.number]
    made = "a page" if not missing else f"a page and the missing tables ({', '.join(missing)})"
    yield f"A touch that the VMA allows gets {made}."
    backing = Backing(found.vmas.backing[found.row])
    if backing in (Backing.FILE, Backing.SHMEM):
        where = "in the page cache" + (" or on swap" if backing is Backing.SHMEM else "")
        yield f"The file's page may be {where} all the same: only page tables are looked at here."
