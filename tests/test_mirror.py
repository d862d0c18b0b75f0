"""The tests mirror the source: each module has a test of its name, or is listed here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.test_layers import MODULES, ROOMS, TESTS, TOP, room_of


class Elsewhere(NamedTuple):
    """Modules without a test of their own, the test that covers them instead, and why."""

    modules: str
    test: str
    why: str


ELSEWHERE = (
    Elsewhere("__main__", "test_interrupt.py", "it only starts the program"),
    Elsewhere("commands.doctor commands.options commands.processes commands.show", "test_cli.py",
              "a command only calls what other tests cover"),
    Elsewhere("account.smaps", "live/test_every_field.py", "every value is compared with smaps"),
    Elsewhere("sources.recorded sources.found walking.recorded history.record_rows"
              " history.record_space history.process_documents",
              "live/test_record.py", "what is recorded is compared with the live process"),
    Elsewhere("history.record_ram history.record_groups system.machine commands.machine",
              "live/test_record_machine.py", "only a machine has RAM and cgroups"),
    Elsewhere("system.ask_group", "live/test_group.py", "only a machine has processes in cgroups"),
    Elsewhere("history.verdicts", "history/test_budget.py", "it is about what was watched"),
    Elsewhere("history.sides", "live/test_diff.py", "what it opens is a recording or a process"),
    Elsewhere("snapshot.schema", "snapshot/test_write.py", "what is written has its columns"),
    Elsewhere("system.signs", "live/test_groups.py", "a sign shows in the kind of memory"),
    Elsewhere("render.fleet_words", "history/test_fleet.py", "a sentence is about the rows"),
    Elsewhere("model.malloc", "account/test_groups.py", "it is a number"),
    Elsewhere("heap.read heap.locate", "live/test_heap_bounds.py",
              "only a process can run, or be stopped"),
    Elsewhere("heap.program", "heap/test_others.py", "it reads what that looks for"),
    Elsewhere("account.totals", "account/test_table.py", "every sum is a column of a table"),
    Elsewhere("account.folio_sums", "account/test_huge.py", "every sum is one of its columns"),
    Elsewhere("account.zeros", "live/test_huge.py", "only a process has memory to read"),
    Elsewhere("account.causes", "account/test_ledger.py", "a cause shows in a line of the ledger"),
    Elsewhere("kernel.bpf.syscall", "kernel/readers/test_bpf.py",
              "a call is tested by the program it loads"),
    Elsewhere("kernel.programs.loops", "kernel/programs/test_count_tables.py",
              "parts of programs, which do nothing on their own"),
    Elsewhere("kernel.structs.kernel kernel.structs.maple", "kernel/structs/test_vmas.py",
              "the VMAs read through them are compared with maps"),
    Elsewhere("kernel.structs.struct_page", "kernel/test_frames.py",
              "every frame of RAM is compared with /proc/kpageflags and kpagecount"),
    Elsewhere("model.frames", "kernel/structs/test_frame_runs.py", "a run is tested by its kind"),
    Elsewhere("kernel.programs.frame_words kernel.programs.folio_words",
              "kernel/programs/test_scan_frames.py", "they are parts of that program"),
    Elsewhere("kernel.structs.gather", "kernel/structs/test_memcgs.py",
              "every member of a group is read through it"),
    Elsewhere("system.look system.labels system.ram_counters",
              "live/test_ram.py", "only a machine has RAM"),
    Elsewhere("system.ram_causes", "system/test_ram_ledger.py",
              "a cause shows in a line of the ledger"),
    Elsewhere("system.endings system.members system.share_walks", "live/test_share.py",
              "only a machine has processes, and objects that end with them"),
    Elsewhere("system.processes history.record_set", "live/test_record_sets.py",
              "what is recorded of a set is compared with the live processes"),
    Elsewhere("system.mappers kernel.structs.rmap_walk kernel.structs.frames_at",
              "live/test_reverse_map.py", "what they find is compared with pagemap"),
    Elsewhere("kernel.structs.i_mmap", "live/test_file_users.py",
              "only a kernel has files, and VMAs that map them"),
    Elsewhere("history.made_of", "live/test_run.py",
              "only a process is made of anything; every total is compared with show's"),
    Elsewhere("commands.sets", "proc/test_chosen.py", "it names what is chosen there"),
    Elsewhere("commands.ram_tables", "live/test_files.py", "only a machine has files in cache"),
    Elsewhere("proc.oom_control", "live/test_armed.py",
              "only a kernel has processes wait at a limit"),
    Elsewhere("render.ram_text render.ram_json", "render/test_ram_words.py",
              "one test for what is written of RAM"),
    Elsewhere("render.group_text render.group_json", "render/test_group_words.py",
              "one test for what is written of a cgroup"),
    Elsewhere("render.ledger_table", "render/test_text.py", "one test for all screens"),
    Elsewhere("kernel.structs.zero", "live/test_huge_zero.py", "only a kernel has a zero page"),
    Elsewhere("kernel.structs.xarray", "kernel/structs/test_memcgs.py",
              "every group is found through it"),
    Elsewhere("kernel.structs.tasks", "live/test_open_files.py", "only a kernel has tasks"),
    Elsewhere("kernel.structs.holders", "live/test_held.py", "only a kernel has open files"),
    Elsewhere("kernel.structs.hugetlb kernel.structs.shmem sources.kernel sources.procfs"
              " sources.tables sources.pagemap sources.amounts", "live/test_exact.py",
              "everything read through them is compared with smaps"),
    Elsewhere("kernel.structs.mappings sources.particulars", "live/test_eligible.py",
              "every value is compared with smaps"),
    Elsewhere("sources.readers sources.process sources.outcome sources.space",
              "sources/test_sources.py",
              "one test for all sources"),
    Elsewhere("kernel.structs.spaces sources.crowd system.share_at_once", "live/test_at_once.py",
              "every total is compared with that of a walk of one process"),
    Elsewhere("sources.doctor", "live/test_rights.py", "what it says depends on the rights"),
    Elsewhere("render.page_table", "render/test_columns.py", "every column is asked for"),
    Elsewhere("render.machine render.differences", "render/test_text.py",
              "one test for all screens"),
    Elsewhere("render.document render.heap_json", "render/test_json.py",
              "one test for all documents"),
    Elsewhere("pagetables.decode pagetables.format", "pagetables/test_walk.py",
              "tables are decoded on a walk through them"),
    Elsewhere("translate.translate", "live/test_vtop.py",
              "it needs page tables and pagemap of the same process"),
)
LISTED = {module: row for row in ELSEWHERE for module in row.modules.split()}


def own_tests(module: str) -> list[Path]:
    """Return the tests named after ``module``: in the mirrored folder, or among the live ones."""
    *folder, name = module.split(".")
    paths = (TESTS.joinpath(*folder, f"test_{name}.py"), TESTS / "live" / f"test_{name}.py")
    return [path for path in paths if path.exists()]


@pytest.mark.parametrize("module", [m for m in MODULES if m not in ROOMS and m != "__init__"])
def test_a_module_has_a_test_of_its_name_or_is_listed(module: str) -> None:
    assert bool(own_tests(module)) != (module in LISTED)


def test_whatever_is_listed_exists() -> None:
    assert set(LISTED) <= set(MODULES)
    assert [row.test for row in ELSEWHERE if not (TESTS / row.test).exists()] == []


# These test a room as a whole.
WHOLE = {
    "commands/test_output.py", "commands/test_put_back.py", "commands/test_recorded.py",
    "commands/test_watch.py",
    "pagetables/arch/test_contract.py", "pagetables/arch/test_source.py",
    "pagetables/test_walk_properties.py", "render/test_formats.py", "snapshot/test_hostile.py",
    "sources/test_sources.py",
}


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "pagewalk"])
def test_every_test_in_a_mirrored_folder_has_a_module(room: str) -> None:
    folder = TESTS.joinpath(*room.split("."))
    tests = {str(path.relative_to(TESTS)) for path in folder.glob("test_*.py")}
    modules = {m.rpartition(".")[2] for m in MODULES if room_of(m) == room and m not in ROOMS}
    own = {str((folder / f"test_{name}.py").relative_to(TESTS)) for name in modules}
    assert tests - own - WHOLE == set()


def test_modules_at_the_top_have_their_tests_at_the_top() -> None:
    assert [m for m in TOP - {"__init__", "__main__"} if not own_tests(m)] == []
