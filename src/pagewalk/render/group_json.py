"""The document of `explain CGROUP`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.proc.files import decode_name
from pagewalk.render import group_words as words
from pagewalk.render.document import ledger_rows, missing, write
from pagewalk.system.group_ledger import KERNELS, kernel_bytes, user_bytes
from pagewalk.system.group_uncompared import not_compared

if TYPE_CHECKING:
    from pagewalk.system.containers import Name
    from pagewalk.system.files import CachedFile
    from pagewalk.system.group import Group
    from pagewalk.system.mapped import ByProcess


def group(found: Group, name: Name, out: TextIO, **_: object) -> None:
    """Write all of it."""
    numbers, told = words.now(found), words.working_set(found)
    charge, files = found.charge, found.files
    write(
        {
            "cgroup": {"path": found.path, "version": found.version,
                       "kind": name.kind or None, "name": name.name,
                       "engine": name.engine or None, "id": name.id or None, "pod": name.pod,
                       "namespace": name.namespace, "container": name.container},
            "charged": numbers.current,
            "limit": numbers.limit,
            "kinds": found.parts,
            "pages": None if charge is None else user_bytes(charge),
            "kernel_pages": None if charge is None else kernel_bytes(charge),
            "kernel_objects": None if charge is None else charge.objects,
            "counted_by_the_kernel": counted(found),
            "charged_in_advance": None if charge is None else words.in_advance(found),
            "percpu_not_told": None if charge is None else words.not_told(found),
            "second_pages": None if charge is None else words.second_pages(found),
            "changed_meanwhile": None if charge is None else words.changed(found),
            "caches": None if charge is None else [one._asdict() for one in found.objects],
            "mapped": amounts("kind", found.mapped),
            "mapped_elsewhere": None if charge is None else amounts("name", found.elsewhere),
            "mapped_uncharged": None if charge is None else amounts("name", found.uncharged),
            "mapped_by_others_only": amounts("kind", found.by_others),
            "processes": None if charge is None else [
                process(one, charge.page) for one in found.processes],
            "files": None if files is None else [file(one) for one in files.files],
            "headroom": None if found.headroom is None else found.headroom._asdict(),
            "swap_room": found.swap_room, "protected_by_min": found.protected,
            "above": [{"path": path, "charged": numbers.current, "limit": numbers.limit}
                      for path, numbers in found.above],
            "swap": words.in_swap(found),
            "peak": numbers.peak, "high": numbers.high, "low": numbers.low, "min": numbers.min,
            "events": numbers.events, "pressure": numbers.pressure,
            "sockets": words.sockets(found),
            "working_set": None if told is None else told[0],
            "below": [{"path": path, "charged": held} for path, held in found.below],
            "dying": None if found.dying is None else found.dying._asdict(),
            "ledger": None if charge is None else ledger_rows(found.lines),
            "not_compared": None if charge is None else [
                {"field": name, "why": reason}
                for name, reason in not_compared(numbers, found.version).items()],
            **missing(found.withheld),
        },
        out,
    )


def counted(found: Group) -> int:
    """Return the bytes that are charged and that only the kernel counts."""
    stat = (words.now(found).stat or {}) if found.version == 2 else {}
    return sum(stat.get(key, 0) for key in KERNELS)


def amounts(naming: str, held: dict[str, int] | None) -> list[dict[str, Any]] | None:
    return None if held is None else [{naming: key, "bytes": size} for key, size in held.items()]


def process(one: ByProcess, page: int) -> dict[str, Any]:
    charged = {kind: count * page for kind, count in one.charged.items()}
    return {"pid": one.pid, "pids_inside": list(one.inside), "name": one.name, **charged,
            "charged_to_others": one.others * page}


def file(one: CachedFile) -> dict[str, Any]:
    place = None if one.place is None else decode_name(one.place.path)
    return {"sort": one.sort.name.lower(), "path": place, "inside": one.inside,
            "seen_by": None if one.place is None else one.place.pid,
            "file_system": one.file_system, "inode": one.inode, "cached": one.amounts.cached,
            "mapped": one.amounts.mapped, "dirty": one.amounts.dirty,
            "kept_by": None if one.kept_by is None else [
                {"pid": holder.pid, "name": holder.comm, "on_host": holder.on_host}
                for holder in one.kept_by]}
