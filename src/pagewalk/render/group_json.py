"""The document of `explain CGROUP`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from pagewalk.render import group_words as words
from pagewalk.render.document import write
from pagewalk.system.group_ledger import KERNELS, kernel_bytes, user_bytes

if TYPE_CHECKING:
    from pagewalk.system.containers import Name
    from pagewalk.system.files import CachedFile
    from pagewalk.system.group import Group
    from pagewalk.system.mapped import ByProcess


def group(found: Group, name: Name, out: TextIO, **_: object) -> None:
    """Write all of it, with or without --ledger."""
    numbers, told = words.now(found), words.working_set(found)
    stat = (numbers.stat or {}) if found.version == 2 else {}
    write(
        {
            "cgroup": {"path": found.path, "version": found.version, "kind": name.kind,
                       "name": name.name, "engine": name.engine, "id": name.id, "pod": name.pod,
                       "namespace": name.namespace, "container": name.container},
            "charged": numbers.current,
            "limit": numbers.limit,
            "kinds": found.parts,
            "pages": user_bytes(found.charge),
            "kernel_pages": kernel_bytes(found.charge),
            "kernel_objects": found.charge.objects,
            "counted_by_the_kernel": sum(stat.get(key, 0) for key in KERNELS),
            "charged_in_advance": words.in_advance(found),
            "caches": [one._asdict() for one in found.objects],
            "mapped": [{"kind": kind, "bytes": held} for kind, held in found.mapped.items()],
            "mapped_elsewhere": [{"name": path, "bytes": held}
                                 for path, held in found.elsewhere.items()],
            "mapped_uncharged": [{"name": path, "bytes": held}
                                 for path, held in found.uncharged.items()],
            "mapped_by_others_only": None if found.by_others is None else [
                {"kind": kind, "bytes": held} for kind, held in found.by_others.items()],
            "processes": [process(one, found.charge.page) for one in found.processes],
            "files": [file(one) for one in found.files.files],
            "headroom": found.headroom._asdict(),
            "swap": words.in_swap(found),
            "sockets": words.sockets(found),
            "working_set": None if told is None else told[0],
            "below": [{"path": path, "charged": held} for path, held in found.below],
            "dying": {"groups": found.dying[0], "charged": found.dying[1]},
            "ledger": [{**line._asdict(), "causes": [cause._asdict() for cause in line.causes]}
                       for line in found.lines],
            "withheld": [{"what": row.what, "why": row.why} for row in found.withheld],
            "partial": found.partial,
        },
        out,
    )


def process(one: ByProcess, page: int) -> dict[str, Any]:
    charged = {kind: count * page for kind, count in one.charged.items()}
    return {"pid": one.pid, "pids_inside": list(one.inside), "name": one.name, **charged,
            "charged_to_others": one.others * page}


def file(one: CachedFile) -> dict[str, Any]:
    place = None if one.place is None else one.place.path.decode(errors="surrogateescape")
    return {"sort": one.sort.name.lower(), "path": place, "inside": one.inside,
            "file_system": one.file_system, "inode": one.inode, "cached": one.amounts.cached,
            "mapped": one.amounts.mapped, "dirty": one.amounts.dirty,
            "kept_by": None if one.kept_by is None else [
                {"pid": holder.pid, "name": holder.comm} for holder in one.kept_by]}
