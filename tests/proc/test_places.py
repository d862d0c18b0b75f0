"""Where a file can be seen, on mountinfo texts written by hand; real mounts are in tests/live."""

from __future__ import annotations

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.mounts import unescaped
from pagewalk.proc.places import Place, places_in

DISK, OTHER = 254 << 32, 31


def mount(number: int, on: int, dev: str, root: str, point: str) -> str:
    return f"{number} {on} {dev} {root} {point} rw - ext4 /dev/x rw\n"


ROOT = mount(20, 1, "254:0", "/", "/")


def seen(path: str, *lines: str, dev: int = DISK) -> list[str] | None:
    """Return every path at which a file of ``dev`` can be seen, the first one first."""
    found = places_in([(dev, path.encode())], "".join(lines).encode(), iter([]))
    place = found.get((dev, path.encode()))
    return None if place is None else [name.decode() for name in (place.path, *place.also)]


def test_a_file_of_the_root_file_system() -> None:
    assert seen("/usr/lib/a.so", ROOT) == ["/usr/lib/a.so"]
    assert seen("/", ROOT) == ["/"]


def test_a_file_system_that_is_not_mounted() -> None:
    assert seen("/a", ROOT, dev=OTHER) is None


def test_a_file_system_mounted_elsewhere() -> None:
    assert seen("/a", ROOT, mount(21, 20, "0:31", "/", "/mnt/b"), dev=OTHER) == ["/mnt/b/a"]
    assert seen("/", ROOT, mount(21, 20, "0:31", "/", "/mnt/b"), dev=OTHER) == ["/mnt/b"]


def test_a_bind_mount_comes_after_the_whole_file_system() -> None:
    lines = [mount(21, 20, "254:0", "/srv/data", "/data"), ROOT]
    assert seen("/srv/data/x/f", *lines) == ["/srv/data/x/f", "/data/x/f"]
    assert seen("/srv/database/f", *lines) == ["/srv/database/f"]


def test_only_a_part_of_a_file_system_is_mounted() -> None:
    lines = [ROOT, mount(21, 20, "0:31", "/part", "/mnt")]
    assert seen("/part/f", *lines, dev=OTHER) == ["/mnt/f"]
    assert seen("/partition/f", *lines, dev=OTHER) is None


def test_a_single_file_is_mounted() -> None:
    lines = [ROOT, mount(21, 20, "0:31", "/resolv.conf", "/etc/resolv.conf")]
    assert seen("/resolv.conf", *lines, dev=OTHER) == ["/etc/resolv.conf"]
    assert seen("/etc/resolv.conf", *lines) is None  # the disk's own is covered


def test_what_another_mount_covers_cannot_be_seen() -> None:
    lines = [ROOT, mount(21, 20, "0:31", "/", "/var")]
    assert seen("/var/log/f", *lines) is None
    assert seen("/variety/f", *lines) == ["/variety/f"]


def test_of_mounts_on_one_another_the_top_one_is_seen() -> None:
    # in any order in the file
    below, above = mount(21, 20, "254:0", "/a", "/mnt"), mount(22, 21, "0:31", "/", "/mnt")
    for lines in ([ROOT, below, above], [above, ROOT, below]):
        assert seen("/f", *lines, dev=OTHER) == ["/mnt/f"]
        assert seen("/a/f", *lines) == ["/a/f"]


def test_a_mount_below_a_covered_folder_is_covered_too() -> None:
    lines = [ROOT, mount(21, 20, "0:31", "/", "/a/b"), mount(22, 20, "254:0", "/c", "/a")]
    assert seen("/f", *lines, dev=OTHER) is None


def test_in_a_chroot_the_root_may_be_no_mount() -> None:
    assert seen("/f", mount(21, 20, "0:31", "/", "/tmp"), dev=OTHER) == ["/tmp/f"]


def test_blanks_and_backslashes_are_as_they_are() -> None:
    assert unescaped(rb"/a\040b\134040\011\012") == b"/a b\\040\t\n"
    line = mount(21, 20, "0:31", r"/x\040y", r"/m\040n")
    assert seen("/x y/f\n", ROOT, line, dev=OTHER) == ["/m n/f\n"]


def test_what_we_do_not_see_is_looked_for_in_other_namespaces() -> None:
    key, mine = (OTHER, b"/f"), (DISK, b"/g")
    theirs = (ROOT + mount(21, 20, "0:31", "/", "/secret")).encode()
    broken = b"no mountinfo\n"
    found = places_in([key, mine], ROOT.encode(), iter([(7, broken), (8, ROOT.encode()),
                                                        (9, theirs), (10, theirs)]))
    assert found == {key: Place(b"/secret/f", (), 9), mine: Place(b"/g", (), None)}


def test_nothing_else_is_read_once_all_are_found() -> None:
    def others():  # type: ignore[no-untyped-def]
        raise AssertionError("asked for")
        yield

    assert places_in([(DISK, b"/f")], ROOT.encode(), others())


def test_our_own_mountinfo_has_to_be_right() -> None:
    with pytest.raises(BadText):
        places_in([(DISK, b"/f")], b"no mountinfo\n", iter([]))


def test_mounts_on_one_another_in_a_circle_end() -> None:
    lines = [mount(20, 21, "254:0", "/", "/"), mount(21, 20, "0:31", "/", "/")]
    assert seen("/f", *lines) is None


def test_a_very_deep_path() -> None:
    path = "/d" * 2000
    assert seen(path, ROOT) == [path]
