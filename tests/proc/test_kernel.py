"""What the running kernel says about itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from pagewalk.proc import kernel


def test_this_kernels_release_and_machine_are_those_of_uname() -> None:
    name = os.uname()
    major, minor = kernel.release()
    assert name.release.startswith(f"{major}.{minor}")
    assert kernel.architecture() == name.machine


@pytest.mark.skipif(not shutil.which("setarch"), reason="setarch is not installed")
def test_the_architecture_is_the_kernels_whatever_setarch_says() -> None:
    tell = "from pagewalk.proc.kernel import architecture; print(architecture())"
    words = ["setarch", "linux32", sys.executable, "-c", tell]
    said = subprocess.run(words, check=False, capture_output=True, text=True)
    if said.returncode:
        pytest.skip(said.stderr)
    assert said.stdout.strip() == kernel.architecture()


def test_the_facts_of_this_kernel_are_what_its_own_tools_print() -> None:
    facts = kernel.read_facts()
    said = subprocess.run(["uname", "-mr"], check=True, capture_output=True, text=True).stdout
    release, machine = said.split()
    assert facts.architecture == machine
    assert release.startswith("{}.{}".format(*facts.release))
    for name, ours in (("PAGESIZE", facts.page_size), ("_NPROCESSORS_ONLN", facts.cpus)):
        asked = subprocess.run(["getconf", name], check=True, capture_output=True, text=True)
        assert int(asked.stdout) == ours


def test_the_configuration_is_not_read_until_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unread(path: str) -> bytes:
        raise AssertionError(f"{path} was read")

    kernel.read_config.cache_clear()
    kernel.has_protection_keys.cache_clear()
    monkeypatch.setattr(kernel, "read_bytes", unread)
    facts = kernel.read_facts()
    monkeypatch.undo()
    assert facts.config == kernel.read_config()
    assert facts.protection_keys == kernel.has_protection_keys()


@pytest.mark.parametrize(("listed", "cpus"), [
    (b"0\n", 1), (b"0-127\n", 128), (b"0-3,8,10-11\n", 7), (b"", None), (b"none\n", None),
])  # fmt: skip
def test_possible_cpus_are_counted(
    listed: bytes, cpus: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "read_bytes", lambda _: listed)
    assert kernel.possible_cpus() == cpus


def test_no_fewer_cpus_are_possible_than_are_online() -> None:
    possible = kernel.possible_cpus()
    assert possible is not None and possible >= kernel.read_facts().cpus
