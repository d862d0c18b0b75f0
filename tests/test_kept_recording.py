"""A recording that was made in 6.1 by an earlier version answers as the kernel did then."""

from __future__ import annotations

import json
from typing import Any

from pagewalk.account.table import SMAPS_FIELDS
from tests.live.command import pagewalk_here
from tests.recordings import HERE

FILE = HERE / "6.1.parquet"
# What smaps and status said of the stopped process, before and after it was recorded, in KiB.
SAYS = json.loads((HERE / "6.1.smaps.json").read_text())


def said(*words: object) -> Any:
    ran = pagewalk_here(*words, FILE, "--format", "json")
    assert ran.code in (0, 3), ran.err
    return ran.json


def test_every_field_of_smaps_is_what_it_was() -> None:
    told = {vma["start"]: vma for vma in said("maps", "--all")["vmas"]}
    compared = 0
    for start, fields in SAYS["vmas"].items():
        for field in SMAPS_FIELDS.keys() & fields.keys():
            ours = told[start].get(SMAPS_FIELDS[field])
            if ours is not None:
                assert ours >> 10 == fields[field], (start, field)
                compared += 1
    # what swap costs by PSS needs those who share it, who were not recorded
    assert compared > 15 * len(SAYS["vmas"]) > 100
    assert sum(fields["Rss"] for fields in SAYS["vmas"].values()) > 1000


def test_its_totals_are_what_they_were() -> None:
    totals = said("show")["totals"]
    for field, name in (("Rss", "rss"), ("Anonymous", "anon"), ("Swap", "swap")):
        assert totals[name] == sum(vma[field] for vma in SAYS["vmas"].values()) << 10, field


def test_explain_has_the_page_tables_that_status_had_and_leaves_nothing_unexplained() -> None:
    ledger = {line["against"]: line for line in said("explain")["ledger"]}
    tables = ledger["status VmPTE"]
    assert tables["ours"] == tables["theirs"] == SAYS["status"]["VmPTE"] << 10 > 0
    rss = ledger["status VmRSS"]  # up to 6.1 the kernel reads its counter approximately
    assert rss["theirs"] == SAYS["status"]["VmRSS"] << 10
    assert rss["ours"] == sum(vma["Rss"] for vma in SAYS["vmas"].values()) << 10
    assert not [line for line in ledger.values() if line["unexplained"]]
