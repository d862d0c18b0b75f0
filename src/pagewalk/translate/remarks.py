"""What a translation means beyond its bits: sentences for people.

Pure. The rules are those of the kernel's fault handler (mm/memory.c) and of fs/proc/task_mmu.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from pagewalk.model.columns import EXEC, READ, SHARED, WRITE, Backing, Flag, State, VMAs
from pagewalk.translate.translation import Translation

UNITS = ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"))

STATES = {
    State.ZERO: "This is the shared zero page, or the huge zero page: memory that was read but"
    " never written. It is not counted in RSS, and a write allocates a private page.",
    State.SPECIAL: "There is no normal struct page behind it (a PFN map, or kernel memory mapped"
    " directly): it is not counted in RSS.",
    State.HUGETLB: "A hugetlb page: counted in HugetlbPages, not in RSS.",
    State.MIGRATING: "The page is being migrated: the frame above is its old one, an access waits"
    " until migration ends, and it counts in RSS throughout.",
    State.GUARD: "A guard region (MADV_GUARD_INSTALL): any access raises SIGSEGV. No memory is"
    " behind it, and no counter includes it, not even swap.",
    State.POISONED: "Poisoned, by a memory error or by UFFDIO_POISON: any access raises SIGBUS.",
    State.MARKER: "A marker: it keeps a page's userfaultfd state while there is no page. No counter"
    " includes it, not even swap.",
    State.DEVICE: "Device memory: a CPU access first migrates the page back.",
}


def amount(size: int) -> str:
    """Return a size in bytes in its largest unit: ``2 MiB``, ``16.4 GiB``, ``1 byte``."""
    for shift, unit in UNITS:
        if size >> shift:
            return f"{size / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} byte" + ("" if size == 1 else "s")


def remarks(found: Translation) -> tuple[str, ...]:
    """Return remarks on ``found``, most important first."""
    return (*about_doubt(found), *about_vma(found), *about_page(found), *about_rights(found),
            *about_hole(found))


def about_doubt(found: Translation) -> Iterator[str]:
    last = found.trace.last
    if last.doubt is not None:
        yield (
            f"The {last.level.name} entry is malformed: {last.doubt.label}. The tables changed"
            " while they were read, or are corrupt."
        )
    if not found.stable:
        yield (
            "The entries changed between readings, so those shown may be from different moments;"
            " use --freeze to stop the process meanwhile."
        )
    if found.pagemap.agrees is False:
        yield f"pagemap disagrees: {found.pagemap.why}."


def about_vma(found: Translation) -> Iterator[str]:
    addr = found.trace.addr
    if found.row is not None and found.vmas.gate[found.row]:
        yield (
            "The gate VMA is the same in every process; if there is no page behind it, the kernel"
            " emulates calls to it."
        )
    elif addr >= found.arch.user_end:
        yield (
            "It is in the kernel half of the address space, which is reached from the same root"
            " table and is the same in every process; user mode cannot access it."
        )
    if found.row is None and addr < found.arch.user_end:
        yield f"It is not in any VMA, so an access raises SIGSEGV{neighbours(found.vmas, addr)}."


def neighbours(vmas: VMAs, addr: int) -> str:
    """Return the distance to the nearest VMA on each side."""
    starts, ends = vmas.start.tolist(), vmas.end.tolist()
    below = [row for row, end in enumerate(ends) if end <= addr][-1:]
    above = [row for row, start in enumerate(starts) if start > addr][:1]
    sides = [f"{called(vmas, row)} ends {addr - ends[row]:#x} below it" for row in below]
    sides += [f"{called(vmas, row)} begins {starts[row] - addr:#x} above it" for row in above]
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
            f"Bit 0 is clear and bit 8 is set: the page exists, but an access faults, {why}. The"
            " frame number is stored inverted, as a mitigation for L1TF."
        )
    if Flag.SWAP in last.flags:
        yield "The page is swapped out: an access reads it back into a new frame."
    if found.trace.present and last.size > 1 << found.arch.page_shift:
        names = [level.name for level in found.arch.levels if level.number < last.level.number]
        yield (
            f"A huge page: the {last.level.name} entry maps {amount(last.size)} directly, so the"
            f" bits that would select a {' and a '.join(names)} are part of the offset."
        )


def grants(found: Translation) -> bool:
    """Return whether the VMA grants any access at all."""
    return found.row is not None and bool(found.vmas.perms[found.row] & (READ | WRITE | EXEC))


def about_rights(found: Translation) -> Iterator[str]:
    last, row = found.trace.last, found.row
    if last.taken and found.trace.present:
        lost = " and ".join(str(flag.name).lower() for flag in last.taken)
        yield (
            f"The {last.level.name} entry grants {lost} but a table above it does not: the CPU"
            " checks them all."
        )
    if not found.trace.present or row is None or Flag.PROT_NONE in last.flags:
        return
    perms = int(found.vmas.perms[row])
    special = found.state in (State.ZERO, State.SPECIAL)
    if perms & WRITE and Flag.WRITE not in last.rights and not special:
        yield write_fault(found, shared=bool(perms & SHARED))


def write_fault(found: Translation, *, shared: bool) -> str:
    """Return why a writable VMA has a read-only entry, and what a write does."""
    why = "The VMA is writable but this entry is not: a write faults, and "
    if Flag.UFFD_WP in found.trace.last.flags:
        return why + "userfaultfd, which write-protected it, is notified."
    if shared:
        return why + "the kernel marks the file's page dirty."
    if found.state is State.ANON and found.frame is not None and found.frame.mapcount == 1:
        return why + "copy-on-write reuses the page, or copies it if others still refer to it."
    return why + "copy-on-write gives this process a copy of the page."


def about_hole(found: Translation) -> Iterator[str]:
    if not found.trace.none or found.row is None or found.trace.addr >= found.arch.user_end:
        return
    last = found.trace.last
    if last.level.number == 1:
        yield "The page table exists, but this slot is empty: never touched, or freed again."
    else:
        yield (
            f"The {last.level.name} entry is empty: there is no table below it, and nothing is"
            f" mapped in the {amount(last.size)} that it covers."
        )
    if not grants(found):
        yield "The VMA grants no access: touching it raises SIGSEGV and allocates nothing."
        return
    missing = [level.name for level in found.arch.levels if level.number < last.level.number]
    made = "a page" if not missing else f"a page and the missing tables ({', '.join(missing)})"
    yield f"An access that the VMA permits allocates {made}."
    backing = Backing(found.vmas.backing[found.row])
    if backing in (Backing.FILE, Backing.SHMEM):
        where = "in the page cache" + (" or on swap" if backing is Backing.SHMEM else "")
        yield f"The file's page may still be {where}: only page tables are examined here."
