"""pagewalk vtop without page tables: what it refuses, and its exit codes."""

from __future__ import annotations

import ctypes
import os

import pytest

from pagewalk.cli import main
from pagewalk.commands.options import Request
from pagewalk.commands.vtop import verdict
from pagewalk.translate.translation import Opinion
from tests.vtop_by_hand import found

ME = str(os.getpid())
REQUEST = Request("ebpf", "text", None, quiet=False, target=ME, budget=5.0)


def refused(*args: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code, and the one sentence on standard error."""
    code = main(["vtop", *args])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pagewalk: ") and err.count("\n") == 1
    return code, err


def test_procfs_shows_no_tables_but_what_pagemap_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = ctypes.create_string_buffer(b"x" * 64)  # a page that is certainly present
    code, err = refused(ME, hex(ctypes.addressof(here)), "--source", "procfs", capsys=capsys)
    assert code == 1
    assert "source 'procfs' is not available: vtop follows page tables" in err
    assert "pagemap says present" in err
    assert "use --source ebpf or kcore" in err


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nothing+0x10", "'nothing' is neither a hexadecimal address nor the name of a VMA"),
        ("0x123456789abcdef01", "exceeds 64 bits"),
    ],
)
def test_an_invalid_address_is_a_usage_error(
    address: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = refused(ME, address, "--source", "procfs", capsys=capsys)
    assert code == 2
    assert says in err


def test_an_unknown_source_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = refused(ME, "stack", "--source", "nothing", capsys=capsys)
    assert code == 2
    assert "no source is called 'nothing'" in err


def test_without_an_address_it_says_that_one_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vtop", ME]) == 2
    assert "Missing argument 'ADDRESS'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("case", "changes", "code", "says"),
    [
        ("page", {}, 0, ""),
        ("none", {}, 0, ""),
        ("outside", {}, 0, ""),
        ("page", {"pagemap": Opinion(None, None, "pagemap is not readable")}, 0, ""),
        ("page", {"pagemap": Opinion(0, False, "it says so")}, 4, "pagemap differs: it says so"),
        ("page", {"stable": False}, 3, "partial: the entries changed while they were read"),
        ("doubt", {}, 3, "partial"),
    ],
)
def test_the_exit_code_says_how_good_the_answer_is(
    case: str, changes: dict[str, object], code: int, says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verdict(REQUEST, found(case, **changes)) == code
    err = capsys.readouterr().err
    assert says in err if says else err == ""
