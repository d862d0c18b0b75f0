"""What of mapped files is in RAM, against pagemap, mincore and what was done: tolerance 0."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pagewalk.proc.kernel import release
from pagewalk.proc.page_cache import mincore
from tests import kernel_says
from tests.kernel_says import PAGE
from tests.live.bracket import living_thread, look_again, working_sources
from tests.live.command import pagewalk
from tests.live.test_inodes import mounted, overlaid
from tests.machine import prepared
from tests.targets import TARGETS, start

pytestmark = pytest.mark.live
MIB = 1 << 20
FILE = 1 << 61  # pagemap: of a file, or shared memory
CACHESTAT = pytest.mark.skipif(release() < (6, 5), reason="cachestat(2) came with 6.5")
# Maps the file PATH as the words say and waits: "MODE FIRST PAGES" reads or writes so many pages.
MAPPER = """if True:
    import mmap, os, sys
    path, *words = sys.argv[1:]
    fd = os.open(path, os.O_RDWR)
    held = []
    for word in words:
        mode, first, pages = word.split(",")
        flags = mmap.MAP_PRIVATE if mode == "copy" else mmap.MAP_SHARED
        one = mmap.mmap(fd, 0, flags=flags)
        one.madvise(mmap.MADV_RANDOM)  # nothing is read ahead
        for page in range(int(first), int(first) + int(pages)):
            one[page * mmap.PAGESIZE]
            if mode != "read":
                one[page * mmap.PAGESIZE] = 1
        held.append(one)
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def mapping(path: Path | str, *words: str, before: tuple[str, ...] = ()) -> Iterator[int]:
    """Start MAPPER on ``path``; yields its pid."""
    with subprocess.Popen([*before, sys.executable, "-I", "-S", "-c", MAPPER, str(path), *words],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def model(disk: Path) -> Iterator[Path]:
    """Yield a file of 16 MiB of which the second half is only on disk."""
    path = disk / "model"
    with path.open("xb") as file:
        file.write(os.urandom(16 * MIB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 8 * MIB, 0, os.POSIX_FADV_DONTNEED)
    yield path
    path.unlink()


def cache(*words: object, code: int = 0) -> dict[str, Any]:
    """Return what `maps --cache` says."""
    ran = pagewalk("maps", *words, "--cache", "--format", "json")
    assert ran.code == code, ran.err
    found: dict[str, Any] = ran.json
    return found


def of(found: dict[str, Any], path: Path | str) -> dict[str, Any]:
    [file] = [one for one in found["files"] if one["name"] == str(path)]
    told: dict[str, Any] = file
    return told


def pages_of_files(pid: int) -> dict[tuple[str, int], set[int]]:
    """Return the pages of each file, by name and inode, that pagemap shows as mapped."""
    said, found = living_thread(pid), dict[tuple[str, int], set[int]]()
    for line in Path(f"/proc/{said}/maps").read_text(errors="surrogateescape").splitlines():
        span, _, offset, _, inode, *name = line.split(None, 5)
        if inode == "0":
            continue
        low, high = (int(edge, 16) for edge in span.split("-"))
        entry = kernel_says.read_pagemap(said, low, high)
        here = (entry & kernel_says.PRESENT != 0) & (entry & FILE != 0)
        pages = found.setdefault((name[0], int(inode)), set())
        pages.update((int(offset, 16) // PAGE + here.nonzero()[0]).tolist())
    return found


def mapped(pid: int, path: Path | str) -> set[int]:
    [pages] = [pages for (name, _), pages in pages_of_files(pid).items() if name == str(path)]
    return pages


@pytest.mark.parametrize("source", working_sources())
@pytest.mark.parametrize("name", [
    "plain", "file_private", "file_shared", "file_thp", "memfd", "shmem_thp", "shared_fork", "sysv",
    "tmpfs", "python",
])  # fmt: skip
def test_what_is_mapped_is_what_pagemap_shows(name: str, source: str) -> None:
    with prepared(*TARGETS[name].needs), start(name, stopped=True) as running:

        def look() -> None:
            before = pages_of_files(running.pid)
            found = cache(running.pid, "--source", source)
            assert before == pages_of_files(running.pid)
            ours = {(one["name"], one["inode"]): one["mapped"] for one in found["files"]}
            assert ours == {key: len(pages) * PAGE for key, pages in before.items()}

        look_again(look)


def test_what_is_in_the_page_cache_is_what_mincore_says(model: Path) -> None:
    with mapping(model, "read,0,100") as pid:
        pages = len(mapped(pid, model))  # with those around each fault

        def look() -> None:
            before = resident(model)
            file = of(cache(pid), model)
            assert before == resident(model)
            assert [one["size"] for one in file["cells"]] == [MIB] * 16
            assert [one["cached"] for one in file["cells"]] == before
            assert (file["size"], file["mapped"]) == (16 * MIB, pages * PAGE)
            assert file["cached"] == sum(before) == file["unmapped"] + pages * PAGE
            assert file["absent"] == 16 * MIB - sum(before) > 0
            assert set(file["strip"][:8]) <= {*"MC"} and file["strip"][8:] == "." * 8

        look_again(look)


def resident(path: Path) -> list[int]:
    with path.open("rb") as file:
        return [mincore(file.fileno(), at, MIB) for at in range(0, path.stat().st_size, MIB)]


def test_pages_are_counted_once_and_copies_apart(model: Path) -> None:
    with mapping(model, "read,0,30", "read,20,20", "copy,50,7") as pid:
        file, pages = of(cache(pid), model), mapped(pid, model)
    assert (file["mapped"], file["copies"]) == (len(pages) * PAGE, 7 * PAGE)
    assert (file["mappings"], file["covered"]) == (3, 48 * MIB)


def test_a_file_is_told_whoever_maps_it(model: Path) -> None:
    with mapping(model, "read,0,30") as one, mapping(model, "read,600,40") as other:
        pages = mapped(one, model) | mapped(other, model)
        [file] = whoever(model)["files"]
        assert (file["mapped"], file["mappings"]) == (len(pages) * PAGE, 2)
        assert file["cached"] == of(cache(one), model)["cached"]
        assert len(file["cells"]) == 512
        assert [cell["mapped"] for cell in file["cells"]] == [
            len(pages.intersection(range(at, at + 8))) * PAGE for at in range(0, 4096, 8)]
    [file] = whoever(model)["files"]
    assert (file["mapped"], file["mappings"]) == (0, 0) and file["cached"] >= 8 * MIB


def whoever(path: Path) -> dict[str, Any]:
    ran = pagewalk("maps", "--cache", "--file", path, "--format", "json")
    assert ran.code in (0, 3), ran.err  # some process may refuse everybody
    found: dict[str, Any] = ran.json
    assert found["asked"] == str(path)
    return found


@CACHESTAT
def test_what_was_written_is_dirty(model: Path) -> None:
    def look() -> None:  # it may be written back at any moment
        with mapping(model, "write,0,5") as pid:
            file = of(cache(pid), model)
            assert file["dirty"] >= 5 * PAGE
            with model.open("rb") as opened:
                os.fsync(opened.fileno())
            file = of(cache(pid), model)
            assert (file["dirty"], file["writeback"]) == (0, 0)

    look_again(look)


def test_a_deleted_file_is_looked_at_too(model: Path) -> None:
    twin = model.with_name("deleted")
    os.link(model, twin)
    with mapping(twin, "read,0,3") as pid:
        twin.unlink()
        name = f"{twin} (deleted)"
        file, pages = of(cache(pid), name), mapped(pid, name)
    assert (file["mapped"], file["size"]) == (len(pages) * PAGE, 16 * MIB)


@CACHESTAT
def test_shared_memory_in_swap_is_told_apart() -> None:
    with prepared(*TARGETS["swap_shmem"].needs), start("swap_shmem", stopped=True) as running:

        def look() -> None:
            before = allocated(running.pid)
            files = [one for one in cache(running.pid)["files"] if one["kind"] == "shmem"]
            assert before == allocated(running.pid)
            assert files and any(one["swapped"] > 0 for one in files)
            # The file system counts a page whether it is in RAM or in swap.
            assert {one["inode"]: one["cached"] + one["swapped"] for one in files} == before
            for one in files:
                assert one["absent"] == one["size"] - one["cached"] - one["swapped"] >= 0
                assert sum(cell["swapped"] for cell in one["cells"]) == one["swapped"]

        look_again(look)


def allocated(pid: int) -> dict[int, int]:
    """Return what each shared memory object that a process maps has, by its inode."""
    found = {}
    for link in Path(f"/proc/{pid}/map_files").iterdir():
        told = link.stat()
        if os.major(told.st_dev) == 0 and told.st_ino:
            kind = subprocess.run(["stat", "-L", "-f", "-c", "%T", link], capture_output=True,
                                  check=True).stdout
            if kind == b"tmpfs\n":
                found[told.st_ino] = told.st_blocks * 512
    return found


@pytest.mark.parametrize("name", ["hugetlb_shared", "hugetlb_private"])
def test_huge_pages_of_hugetlbfs_are_a_sum(name: str) -> None:
    with prepared(*TARGETS[name].needs), start(name) as running:
        files = [one for one in cache(running.pid)["files"] if one["kind"] == "hugetlb"]
    assert files
    for one in files:
        assert one["cached"] >= one["mapped"] and one["dirty"] is None
        assert all(cell["cached"] is None for cell in one["cells"])
    if name == "hugetlb_shared":
        assert any(one["mapped"] > 0 for one in files)


def test_an_ordinary_user_sees_files_of_their_own() -> None:
    drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    path = Path(f"/var/tmp/pagewalk-{os.getpid()}-own")
    path.write_bytes(b"x" * 9 * PAGE)
    os.chown(path, 65534, 65534)
    try:
        with mapping(path, "read,2,3", before=drop) as pid:
            ran = pagewalk("maps", pid, "--cache", "--format", "json", before=drop)
            assert ran.code in (0, 3), ran.err
            file = of(ran.json, path)
            pages = len(mapped(pid, path)) * PAGE
            assert (file["mapped"], file["cached"], file["absent"]) == (pages, 9 * PAGE, 0)
            # Of libc.so the kernel may say nothing: then its reason is given, and no zero.
            for one in ran.json["files"]:
                assert one["mapped"] is not None
                if one["cached"] is None:
                    assert any(one["name"] in row["what"] or "others" in row["what"]
                               for row in ran.json["withheld"])
            alone = pagewalk("maps", "--cache", "--file", path, "--format", "json", before=drop)
            assert alone.code == 3 and "could not be looked at" in alone.err
            [file] = alone.json["files"]
            assert (file["mapped"], file["cached"]) == (pages, 9 * PAGE)
    finally:
        path.unlink()


def test_a_file_that_was_replaced_is_not_taken_for_it(model: Path) -> None:
    drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    path = Path(f"/var/tmp/pagewalk-{os.getpid()}-replaced")
    path.write_bytes(b"x" * 9 * PAGE)
    os.chown(path, 65534, 65534)
    try:
        with mapping(path, "read,2,3", before=drop) as pid:
            path.rename(path.with_suffix(".old"))
            path.write_bytes(b"y" * PAGE)
            os.chown(path, 65534, 65534)
            ran = pagewalk("maps", pid, "--cache", "--format", "json", before=drop)
            # maps shows the new name of the file
            assert of(ran.json, path.with_suffix(".old"))["size"] == 9 * PAGE
    finally:
        path.unlink()
        path.with_suffix(".old").unlink(missing_ok=True)


@pytest.mark.parametrize(("words", "complaint"), [
    (("--cache",), "name one of them"),
    ((os.getpid(), "--cache", "--file", "/bin/sh"), "name one of them"),
    ((os.getpid(), "--file", "/bin/sh"), "--file goes with --cache"),
    ((os.getpid(), "--cache", "--by", "file"), "use one or the other"),
    (("--cache", "--file", "/no/such"), "cannot look at /no/such: no such file or directory"),
    (("--cache", "--file", "/dev/zero"), "no file with contents of its own"),
    (("--cache", "--file", "/bin/sh", "--freeze"), "leave out --freeze"),
])
def test_what_makes_no_sense_is_refused(words: tuple[object, ...], complaint: str) -> None:
    ran = pagewalk("maps", *words)
    assert ran.code == 2 and ran.out == "" and complaint in ran.err


def test_a_file_on_an_overlay_has_the_pages_of_the_one_below(tmp_path: Path) -> None:
    with overlaid(tmp_path) as (base, merged):
        (base / "lower/model").write_bytes(b"x" * 32 * PAGE)
        path = merged / "model"
        [alone] = whoever(path)["files"]
        assert (alone["mapped"], alone["cached"], alone["absent"]) == (0, 32 * PAGE, 0)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as held:
            assert held[5 * PAGE] == ord("x")
            found = cache(os.getpid())
            told, pages = of(found, path), len(mapped(os.getpid(), path)) * PAGE
            assert pages > 0 and told["dirty"] is None
            assert (told["mapped"], told["cached"], told["absent"]) == (pages, 32 * PAGE, 0)
            [why] = [row["why"] for row in found["withheld"] if row["what"].endswith(str(path))]
            assert "overlay" in why and found["partial"] == []


def test_pages_of_a_huge_page_beyond_the_end_of_a_file_count_where_they_are_mapped(
    tmp_path: Path,
) -> None:
    with mounted(tmp_path / "huge", "-t", "tmpfs", "-o", "huge=always", "pagewalk") as point:
        path = point / "file"
        path.write_bytes(b"x" * 3 * MIB)
        with path.open("rb+") as file, mmap.mmap(file.fileno(), 3 * MIB) as held:
            assert held[0] == held[3 * MIB - 1] == ord("x")
            told = of(cache(os.getpid()), path)
            pages = mapped(os.getpid(), path)
            assert told["mapped"] == len(pages) * PAGE
            assert told["size"] == max(3 * MIB, (max(pages) + 1) * PAGE)
            assert told["unmapped"] >= 0 and told["absent"] >= 0
            assert sum(cell["mapped"] for cell in told["cells"]) == told["mapped"]


def test_a_path_that_is_replaced_meanwhile_is_one_file_or_the_other(model: Path) -> None:
    """Two files, one of which is mapped, take turns under one name."""
    small, name = model.with_name("small"), model.with_name("name")
    small.write_bytes(b"x" * PAGE)
    script = ("import os, sys; small, large, name = sys.argv[1:]; print('ready', flush=True)\n"
              "while True:\n"
              "    for one in small, large:\n"
              "        os.link(one, name + '~'); os.replace(name + '~', name)\n")
    os.link(small, name)
    with mapping(model, "read,0,30"), subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script, small, model, name],
            stdout=subprocess.PIPE) as turns:
        try:
            assert turns.stdout is not None and turns.stdout.readline() == b"ready\n"
            for _ in range(8):
                [told] = whoever(name)["files"]
                assert (told["size"], told["mappings"]) in ((PAGE, 0), (16 * MIB, 1))
        finally:
            turns.kill()


@pytest.mark.parametrize("source", working_sources())
def test_another_file_of_the_same_number_under_the_same_name_is_not_taken_for_it(
    tmp_path: Path, source: str
) -> None:
    with mounted(tmp_path / "over", "-t", "tmpfs", "pagewalk") as point:
        (point / "file").write_bytes(b"x" * 16 * PAGE)
        with mapping(point / "file", "read,0,16"), mounted(
                point, "-t", "tmpfs", "pagewalk"):
            (point / "file").write_bytes(b"y" * 16 * PAGE)
            ran = pagewalk("maps", "--cache", "--file", point / "file", "--format", "json",
                           "--source", source)
            [told] = ran.json["files"]
            assert (told["mappings"], told["mapped"], told["cached"]) == (0, 0, 16 * PAGE)


@pytest.mark.parametrize("words", [("who",), ("maps", "--cache")])
def test_what_is_no_plain_file_is_not_opened(tmp_path: Path, words: tuple[str, ...]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = ("import os, sys; print('ready', flush=True); os.open(sys.argv[1], os.O_WRONLY);"
              " print('opened', flush=True)")
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", script, pipe],
                          stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            while not sleeps(writer.pid):  # it waits for somebody who reads
                time.sleep(0.01)
            pagewalk(*words, "--file", pipe)
            assert sleeps(writer.pid)
        finally:
            writer.kill()
            assert writer.stdout is not None and writer.stdout.read() == b""


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "S"


@pytest.mark.skipif(release() >= (6, 5), reason="only mincore(2) tells before 6.5")
def test_what_mincore_does_not_tell_is_withheld(model: Path) -> None:
    with mapping(model, "write,0,5") as pid:
        file = of(cache(pid), model)
    assert file["dirty"] is file["writeback"] is None
    assert file["cached"] == sum(resident(model))
