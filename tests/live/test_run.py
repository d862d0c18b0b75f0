"""pagewalk run as root, as an ordinary user and on swap: its bounds hold what frames say."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.history.test_child import FAMILY, HOLD, MIB, python
from tests.history.watching import Run, budget, kernel_says, running
from tests.live.bracket import look_again
from tests.live.command import pagewalk
from tests.machine import prepared
from tests.targets import build

pytestmark = pytest.mark.live
PAGE = os.sysconf("SC_PAGE_SIZE")
# Everything is imported before the rights are dropped: only root may read the checkout.
EVERYBODYS = "/usr/bin/python3"
NOBODY = (sys.executable, "-m", "tests.live.dropped", "--user", "65534")


def tree_of(ran: Run) -> list[int]:
    pid = int(ran.said)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def test_the_bounds_hold_what_the_frames_say() -> None:
    look_again(check_bounds)


def check_bounds() -> None:
    with running(python(FAMILY)) as ran:
        ran.looked_at()
        family = tree_of(ran)
        ran.looked_at()
        told = pagewalk("share", *family, "--format", "json").json
        ran.looked_at()
        again = pagewalk("share", *family, "--format", "json").json
        ran.kill(*family)
        _, report = ran.end()
    last = {name: budget(report, name)["last"] for name in ("uss", "pss", "rss")}
    for found in (told, again):  # share walks page frames, each counted once
        alone = found["held"] - found["elsewhere"]["bytes"]
        assert last["uss"]["at_least"] <= alone <= last["uss"]["at_most"]
        assert last["rss"]["at_least"] <= found["held"] <= last["rss"]["at_most"]
    # smaps_rollup leaves out less than a KiB of each process's PSS.
    assert last["pss"]["at_least"] <= told["pss_sum"] < last["pss"]["at_least"] + 3 * 1024


def test_what_it_was_made_of_is_what_maps_says() -> None:
    with running(python(HOLD, 40), "--max-uss", "20M") as ran:
        ran.looked_at()
        table = pagewalk("maps", int(ran.said), "--by", "kind", "--format", "json").json
        ran.kill(int(ran.said))
        code, report = ran.end()
    assert code == 4
    (worst,) = report["worst"]
    made = worst["made_of"]
    assert not made["missing"] and made["after"] >= worst["after"]
    anonymous = {part["name"]: part for part in made["kinds"]}["other anonymous"]
    (said,) = (group for group in table["groups"] if group["group"] == "anonymous")
    # It was walked while it grew, or when it had.
    assert 20 * MIB - said["rss"] < anonymous["uss"] <= said["rss"]
    assert sum(part["rss"] for part in made["kinds"]) <= table["totals"]["rss"]


def test_swap() -> None:
    with prepared("zram"):
        words = [str(build()), "swap_private"]
        with running(words, "--max-swap", "0") as ran:
            facts = ready(ran)
            ran.looked_at()
            ran.say(b"exit\n")
            code, report = ran.end()
    swapped = facts["private"]["swapped"] * PAGE
    assert code == 4 and swapped > 0
    swap = budget(report, "swap")
    assert swap["exceeded"] and swap["peak"]["at_least"] >= swapped
    assert swap["last"] == {"at_least": swapped, "at_most": swapped}
    assert {part["swap"] for part in report["worst"][0]["made_of"]["kinds"]} != {0}


def test_slots_of_swap_that_processes_share_count_once() -> None:
    with prepared("zram"), running([str(build()), "swap_forked"]) as ran:
        ready(ran)
        ran.looked_at()
        ran.say(b"exit\n")
        _, report = ran.end()
    swap = budget(report, "swap")["peak"]
    # 64 slots; in the page tables of three processes 64, 48 and 56.
    assert swap["at_least"] == 64 * PAGE and swap["looks_at_most"] >= 168 * PAGE


def ready(ran: Run) -> dict[str, Any]:
    facts = dict[str, Any]()
    assert ran.process.stdout is not None
    line = ran.said
    while b"ready" not in line:
        facts |= json.loads(line)
        line = ran.process.stdout.readline()
    return facts


def test_an_ordinary_user_needs_no_rights() -> None:
    words = [EVERYBODYS, "-c", FAMILY]
    with running(words, "--max-uss", "64M", "--max-rss", "1G", program=NOBODY) as ran:
        ran.looked_at()
        uids = {Path(f"/proc/{pid}").stat().st_uid for pid in tree_of(ran)}
        ran.say()
        code, report = ran.end()
    assert uids == {65534}
    assert code == 4 and not report["partial"] and not report["withheld"]
    uss = budget(report, "uss")
    assert uss["exceeded"] and uss["peak"]["at_least"] >= 80 * MIB
    assert budget(report, "rss")["exceeded"] is False
    made = report["worst"][0]["made_of"]
    assert made["kinds"][0]["uss"] is None and made["kinds"][0]["rss"] > 0  # no frames are visible


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a folder that every user may enter; pytest's own are root's."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_process_that_may_not_be_read_is_bounded_by_its_rss(public: Path) -> None:
    # As with sudo: a program that is another user's.
    setuid = public / "cat"
    shutil.copy(shutil.which("cat") or "/bin/cat", setuid)
    setuid.chmod(0o4755)
    with running(["sh", "-c", 'echo $$; "$0"; true', str(setuid)], "--max-uss", "1M", "--max-rss",
                 "1G", program=NOBODY) as ran:
        ran.say(b"x\n")
        assert ran.process.stdout is not None and ran.process.stdout.readline() == b"x\n"
        ran.looked_at()
        (child,) = tree_of(ran)[1:]
        resident = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * PAGE
        code, report = ran.end()
    assert code == 3
    uss, rss = budget(report, "uss"), budget(report, "rss")
    assert uss["exceeded"] is None and uss["peak"]["at_least"] < MIB < uss["peak"]["looks_at_most"]
    assert rss["exceeded"] is False and rss["peak"]["at_least"] >= resident
    (why,) = (row["why"] for row in report["withheld"] if f"process {child} " in row["what"])
    assert "permission denied: it belongs to uid 0, you are uid 65534; run as root" in why


def test_two_processes_in_one_address_space_count_once() -> None:
    look_again(check_one_address_space)


def check_one_address_space() -> None:
    with running([str(build()), "shared_mm"]) as ran:
        facts = ready(ran)
        ran.looked_at()
        pid = facts["parent"]["pid"]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        family = [pid, *map(int, children)]
        said = [kernel_says(one) for one in family]
        ran.looked_at()
        assert said == [kernel_says(one) for one in family]
        ran.kill(*family)
        _, report = ran.end()
    assert len(family) == 2 and said[0] == said[1]
    for measure, amount in said[0].items():
        assert budget(report, measure)["last"] == {"at_least": amount, "at_most": amount}
