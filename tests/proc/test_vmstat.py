"""/proc/vmstat, on lines written by hand and on this machine."""

from __future__ import annotations

import os

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc import vmstat
from pagewalk.proc.vmstat import parse_vmstat, refresh

TEXT = b"nr_free_pages 5415284\nnr_zone_active_anon 0\npgpgin 18446744073709551615\n"


def test_a_line_is_a_name_and_a_number() -> None:
    assert parse_vmstat(TEXT) == {
        "nr_free_pages": 5415284, "nr_zone_active_anon": 0, "pgpgin": (1 << 64) - 1,
    }


@pytest.mark.parametrize("line", [b"\n", b"a -1\n", b"a 1 2\n", b"a\t1\n", b"a 1", b"a \n"])
def test_an_invalid_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadText, match="line 4 of vmstat"):
        parse_vmstat(TEXT + line)


def test_only_root_may_refresh_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refresh() == (os.geteuid() == 0)
    monkeypatch.setattr(vmstat, "REFRESH", "/proc/no/such/file")
    assert not refresh()
