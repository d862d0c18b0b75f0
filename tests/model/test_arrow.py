"""Without pyarrow, one sentence says what to install."""

import sys

import pytest

from pagewalk.model.arrow import arrow
from pagewalk.model.errors import PackageMissing


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # import fails
    with pytest.raises(PackageMissing, match=r"record needs the package pyarrow.*pagewalk\[snap"):
        arrow("record")
