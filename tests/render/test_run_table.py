"""The screen and the document of `run`, of results by hand."""

from __future__ import annotations

import io
import json
from typing import Any

from pagewalk.history.budget import Bounds
from pagewalk.history.verdicts import verdicts
from pagewalk.render import view
from pagewalk.render.run_table import withheld
from tests.run_by_hand import AMOUNTS, LOOK, MIB, report


def text(**changed: Any) -> str:
    out = io.StringIO()
    view("text", "run")(report(**changed), out)
    return out.getvalue()


def document(**changed: Any) -> Any:
    out = io.StringIO()
    view("json", "run")(report(**changed), out)
    return json.loads(out.getvalue())


def test_the_first_sentence_says_which_budget_was_exceeded_by_how_much() -> None:
    told = " ".join(text().split())
    assert told.startswith("USS exceeded its budget: it reached at least 215040 KiB after 1.250 s,"
                           " 10240 KiB more than 204800 KiB. Whether RSS kept its budget is not"
                           " known. /srv/server ended with exit code 0 after 2.500 s; it was looked"
                           " at once")


def test_each_measure_has_a_row() -> None:
    rows = [line.split() for line in text().splitlines()]
    assert ["USS", "204800", "215040", "1.250", "s", "215040", "to", "244736", "exceeded"] in rows
    assert ["PSS", "235520", "1.250", "s", "235520", "to", "243712"] in rows
    assert ["RSS", "311296", "307200", "1.250", "s", "307200", "to", "315392", "not",
            "known"] in rows
    assert ["SWAP", "0", "1.250", "s", "0"] in rows


def test_the_worst_moment_has_its_processes_and_what_they_were_made_of() -> None:
    rows = [line.split() for line in text().splitlines()]
    assert ["10", "204800", "235520", "307200", "0", "/srv/server", "--fast"] in rows
    assert ["11", "n/a", "n/a", "8192", "0", "sudo"] in rows
    assert ["153600", "153600", "153600", "0", "heap"] in rows
    assert ["n/a", "n/a", "2048", "0", "/usr/lib/libc.so.6"] in rows
    assert "without: cannot read /proc/11/maps" in text()
    assert "left behind: 11 sudo" in text()


def test_why_the_worst_moment_shown_is_not_the_peak_is_said() -> None:
    def told(uss: int) -> str:
        found = report()
        found.seen.add(LOOK._replace(at=1.75, amounts={**AMOUNTS, "uss": Bounds(uss, uss)}))
        out = io.StringIO()
        view("text", "run")(found._replace(verdicts=tuple(verdicts(found.seen))), out)
        return " ".join(out.getvalue().split())

    assert "the peak of" not in text()
    said = told(220 * MIB)
    assert "it reached at least 225280 KiB after 1.750 s" in said
    assert "USS after 1.250 s, in" in said
    assert ("the peak of USS, 225280 KiB after 1.750 s: less than 1/16 more than here, too little"
            " to look at all of it again") in said
    said = told(240 * MIB)
    assert "the peak of" not in said and "USS after 1.750 s, in" in said
    # The processes of a higher look had ended before they could be looked at.
    found = report()
    found.seen.peaks["uss"] = LOOK._replace(at=1.75, amounts={
        **AMOUNTS, "uss": Bounds(300 * MIB, 300 * MIB)})
    out = io.StringIO()
    view("text", "run")(found, out)
    assert ("the peak of USS, 307200 KiB after 1.750 s: what that was made of was gone when it was"
            " looked at") in " ".join(out.getvalue().split())


def test_what_its_processes_share_closes_the_sum() -> None:
    told = " ".join(text().split())
    # Of the server's 230 MiB it has 200 alone; the tree has at least 210.
    assert ("together 235520 KiB of PSS, without 1 process that could not be read: 204800 that a"
            " single process has alone (USS added up), 10240 to 30720 that only processes of the"
            " tree share, and 0 to 20480 as their part of what others map too") in told
    assert document()["worst"][0]["together"] == {
        "pss": 230 * MIB, "alone": 200 * MIB,
        "within": {"at_least": 10 * MIB, "at_most": 30 * MIB},
        "others": {"at_least": 0, "at_most": 20 * MIB}}


def test_what_is_not_known_has_its_reason() -> None:
    what = [row.what for row in withheld(report()) if row.partial]
    assert what == ["whether RSS kept its budget", "USS and PSS of process 11 (sudo)"]
    # With more room it kept its budget whatever the truth is, and nothing depends on the other.
    assert [row.partial for row in withheld(report(rss=308 * MIB))] == [False]
    assert not document(rss=308 * MIB)["partial"]


def test_without_a_look_nothing_is_known() -> None:
    told = document(looked=False)
    assert told["looks"] == 0 and told["worst"] == []
    for row in told["budgets"]:
        assert row["exceeded"] is row["last"] is row["peak"]["at_least"] is None
    assert told["partial"] == ["what it held: it ended before it could be looked at"]
    rows = [line.split() for line in text(looked=False).splitlines()]
    assert ["USS", "204800", "n/a", "n/a", "not", "known"] in rows


def test_the_document_has_exact_bytes() -> None:
    told = document()
    uss = told["budgets"][0]
    assert uss["budget"] == 200 * MIB and uss["exceeded"] is True
    assert uss["peak"] == {"at_least": 210 * MIB, "after": 1.25, "by": "a look",
                           "looks_at_most": 239 * MIB}
    (worst,) = told["worst"]
    assert worst["made_of"]["kinds"][0] == {
        "name": "heap", "uss": 150 * MIB, "pss": 150 * MIB, "rss": 150 * MIB, "swap": 0}
    assert worst["processes"][1]["refused"] == "it belongs to uid 0"


def test_what_vm_hwm_has_beyond_all_looks_is_why_a_budget_is_not_known() -> None:
    one = verdicts(report().seen)[0]._replace(
        limit=300 * MIB, most=200 * MIB, exceeded=None, between=150 * MIB)
    [first, *_] = withheld(report()._replace(verdicts=(one,)))
    assert (first.what, first.partial) == ("whether USS kept its budget", True)
    assert first.why.startswith("no look saw more than 204800 KiB of it, but between two looks RSS"
                                " was 153600 KiB higher than any saw (VmHWM): look more often")
