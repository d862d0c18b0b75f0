"""./pagewalk in a checkout that was moved, is read-only, belongs to others, or has no network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks
from tests.machine import IN_GUEST

pytestmark = [
    pytest.mark.live,  # root creates mounts and networks, and becomes nobody
    pytest.mark.skipif(IN_GUEST, reason="setting up is the host's"),
]

NEEDED = ("pagewalk", "pyproject.toml", "README.md", "LICENSE", "scripts", "src", "docs")
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
NO_NETWORK = ("unshare", "--net")
PATIENCE = 240


def read_only(checkout: Path) -> tuple[str, ...]:
    """Return the words to put before a command so that it sees ``checkout`` mounted read-only."""
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, str(checkout))


@pytest.fixture
def checkout() -> Iterator[Path]:
    """Return a checkout without .venv that everybody may read."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        made = Path(folder, "checkout")
        made.mkdir()
        for name in NEEDED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, made / name)
        yield made


def install(checkout: Path) -> None:
    """Make what scripts/setup makes, from the packages that are installed here."""
    venv = checkout / ".venv"
    subprocess.run(["python3", "-m", "venv", "--without-pip", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "here.pth").write_text(f"{checkout}/src\n{here}\n")
    program = venv / "bin/pagewalk"
    text = (checkout / "scripts/program.py").read_text()
    program.write_text(text.replace("#!python", f"#!{venv}/bin/python3"))
    program.chmod(0o755)
    (venv / "installed").write_text(f"{checkout} {(venv / 'bin/python').resolve()}\n")


def pagewalk(checkout: Path, *before: str, **environ: str) -> tuple[int, str, str]:
    # Only the usual index, and none of this machine's wheels: what a newcomer has.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    strange = {"PIP_CONFIG_FILE": os.devnull, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*before, checkout / "pagewalk", "--version"], capture_output=True,
                          text=True, check=False, timeout=PATIENCE,
                          env={**clean, **strange, **environ})
    return done.returncode, done.stdout, done.stderr


def refused(ran: tuple[int, str, str]) -> str:
    """Return the only sentence printed by a command that did nothing."""
    code, out, err = ran
    lines = [line for line in err.splitlines() if "installing into" not in line]
    assert (code, out, len(lines)) == (1, "", 1), ran
    assert lines[0].startswith("pagewalk: ")
    return lines[0].removeprefix("pagewalk: ")


def works(ran: tuple[int, str, str]) -> bool:
    return ran[0] == 0 and ran[1].startswith("pagewalk, version ") and ran[2] == ""


def test_a_checkout_that_is_set_up_works_read_only(checkout: Path) -> None:
    install(checkout)
    assert works(pagewalk(checkout, *read_only(checkout)))


def test_a_read_only_checkout_is_refused_with_advice(checkout: Path) -> None:
    said = refused(pagewalk(checkout, *read_only(checkout)))
    assert said.startswith(f"cannot write to {checkout}/.venv: Read-only file system; copy the")
    assert f"cp -r {checkout} ~/pagewalk" in said


@pytest.mark.parametrize("half_made", [False, True])
def test_a_checkout_of_root_is_refused_to_a_user_with_advice(
    checkout: Path, half_made: bool
) -> None:
    if half_made:
        (checkout / ".venv").mkdir()
    said = refused(pagewalk(checkout, *NOBODY, PATH="/usr/bin:/bin"))
    assert said.startswith(f"cannot write to {checkout}/.venv: Permission denied; copy the")
    assert f"have a user who may write here run {checkout}/scripts/setup" in said


def test_a_checkout_of_root_that_is_set_up_works_for_a_user(checkout: Path) -> None:
    install(checkout)
    python = (checkout / ".venv/bin/python").resolve()
    # setpriv itself still has root's rights when it execs the program.
    tried = subprocess.run([*NOBODY, "sh", "-c", 'exec "$0" -c ""', python], capture_output=True,
                           check=False)
    if tried.returncode:
        pytest.skip(f"{python} is for root only")
    assert works(pagewalk(checkout, *NOBODY))


@pytest.mark.slow
def test_a_missing_network_is_reported(checkout: Path) -> None:
    said = refused(pagewalk(checkout, *NO_NETWORK))
    assert said.startswith("pip cannot reach the packages it needs; connect to the network")
    log = said.rpartition(" is in ")[2]
    assert "hatchling" in Path(log).read_text()


@pytest.mark.slow
def test_an_index_without_the_packages_is_reported(checkout: Path, tmp_path: Path) -> None:
    said = refused(pagewalk(checkout, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path)))
    assert said.startswith("pip failed: No matching distribution found for hatchling")


def begins(checkout: Path) -> str:
    """Return the first line that ./pagewalk prints on stderr, and stop it there."""
    with subprocess.Popen([checkout / "pagewalk", "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return line


def test_a_moved_checkout_is_set_up_again(checkout: Path) -> None:
    install(checkout)
    assert works(pagewalk(checkout))
    moved = checkout.rename(checkout.with_name("moved"))
    assert begins(moved) == f"pagewalk: installing into {moved}/.venv\n"


def test_a_checkout_whose_python_is_gone_is_set_up_again(checkout: Path) -> None:
    install(checkout)
    python = checkout / ".venv/bin/python3"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert begins(checkout) == f"pagewalk: installing into {checkout}/.venv\n"


@pytest.mark.slow
def test_a_moved_checkout_works_where_packages_are_available(checkout: Path) -> None:
    install(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    code, out, err = pagewalk(moved, **{n: v for n, v in os.environ.items() if n[:4] == "PIP_"},
                              PIP_CONFIG_FILE="")
    if "cannot reach" in err:
        pytest.skip("no package index can be reached from here")
    assert (code, out[:18]) == (0, "pagewalk, version ")
    assert works(pagewalk(moved))


WAYS = [line for block in blocks(ROOT / "README.md", "sh") if "install" in block.words
        for line in block.text.splitlines()]


def test_three_ways_to_install_it_are_shown() -> None:
    assert [line.split()[0] for line in WAYS] == ["pipx", "uv", "python3"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=["pipx", "uv", "pip"])
def test_each_way_to_install_it_works(checkout: Path, tmp_path: Path, way: str) -> None:
    installer, _, _ = way.partition(" ")
    if installer == "uv" and not shutil.which(installer):
        pytest.skip("uv is not installed, and Debian has no package of it")
    home = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": f"{tmp_path}/.local/share",
            "PIPX_HOME": f"{tmp_path}/pipx", "PIPX_BIN_DIR": f"{tmp_path}/.local/bin"}
    done = subprocess.run(["bash", "-c", way], cwd=checkout, env=home, capture_output=True,
                          text=True, check=False, timeout=PATIENCE)
    said = done.stdout + done.stderr
    if "establish a new connection" in said or "dns error" in said:
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, said
    program = next(tmp_path.glob("**/.local/**/bin/pagewalk"))
    ran = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
    assert ran.stdout.startswith("pagewalk, version ")
