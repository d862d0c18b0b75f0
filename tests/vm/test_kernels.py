"""The table of kernels."""

from vmtest.kernels import KERNELS, SHORT

# Those of Debian's releases; a backport is there for what changed between two of them.
SUITES = {row.suite for row in KERNELS.values() if not row.suite.endswith("-backports")}


def test_every_release_boots_with_both_numbers_of_levels_and_both_lockdowns() -> None:
    assert len(SUITES) >= 2
    for suite in SUITES:
        rows = [kernel for kernel in KERNELS.values() if kernel.suite == suite]
        assert {kernel.levels for kernel in rows} == {4, 5}
        options = {option for kernel in rows for option in kernel.cmdline}
        assert {"lockdown=integrity", "lockdown=confidentiality"} <= options


def test_the_short_selection_has_each_release_and_each_number_of_levels() -> None:
    chosen = [KERNELS[name] for name in SHORT]
    assert {kernel.suite for kernel in chosen} == SUITES
    assert {kernel.levels for kernel in chosen} == {4, 5}
