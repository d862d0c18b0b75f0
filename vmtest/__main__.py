"""The command line: python -m vmtest list | fetch | run KERNEL -- COMMAND | test | support."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vmtest import told
from vmtest.errors import VmtestError
from vmtest.fetch import cache_dir, fetch, find_unpacked
from vmtest.kernels import KERNELS, SHORT, Kernel
from vmtest.rounds import (
    NAME,
    Round,
    count,
    failures,
    load,
    parts,
    read_parts,
    read_rows,
    save,
    write_support,
)
from vmtest.run import Result, run_in_vm

# Seconds for one guest. A guest runs Python about ten times slower than the host. All live tests
# take it hours. The short selection is for continuous integration: two guests take less than eight
# minutes on a quiet machine. These limits leave room for a busy one.
TEST_TIMEOUT = 6 * 3600.0
SHORT_TIMEOUT = 1500.0

# Compiled once on the host: it would take a guest a minute.
COMPILE = """
import sys
from pathlib import Path
from tests.targets.running import compile_zoo
compile_zoo(Path(sys.argv[1]))
"""

# Seconds for one test, in place of pyproject.toml's limit, which is meant for the host.
ONE_TEST_TIMEOUT = 1200


def run_list(arguments: argparse.Namespace) -> int:
    """Print the table of kernels."""
    for kernel in KERNELS.values():
        unpacked = find_unpacked(kernel)
        release = unpacked.release if unpacked else "(not fetched)"
        options = " ".join(kernel.cmdline)
        row = f"{kernel.name:22}{kernel.levels} levels  {kernel.suite:18}{release:24}{options}"
        print(row.rstrip())
    return 0


def run_fetch(arguments: argparse.Namespace) -> int:
    """Download and unpack kernels; --update looks for newer ones."""
    fetched = set()
    for kernel in choose_kernels(arguments.kernel or KERNELS):
        if (kernel.package, kernel.suite) not in fetched:
            unpacked = fetch(kernel, update=arguments.update)
            print(f"{kernel.suite:18}{unpacked.release:24}{unpacked.root}")
        fetched.add((kernel.package, kernel.suite))
    return 0


def run_run(arguments: argparse.Namespace) -> int:
    """Run one command as root in one kernel, and exit with its exit code."""
    (kernel,) = choose_kernels([arguments.kernel])
    result = run_in_vm(
        kernel,
        arguments.command,
        timeout=arguments.timeout,
        memory=arguments.memory << 20,
        cpus=arguments.cpus,
        echo=sys.stdout,
        output=arguments.output,
    )
    sys.stderr.write(result.stderr)
    print(f"vmtest: {describe(kernel, result)}", file=sys.stderr)
    return result.returncode


def run_test(arguments: argparse.Namespace) -> int:
    """Run pytest in one kernel after another; exit 0 only if it passed in all."""
    if arguments.record and arguments.selection:
        raise VmtestError("--record is for whole and short rounds; leave out the selection")
    chosen = arguments.kernel or (SHORT if arguments.short else KERNELS)
    summary, failed = [], False
    with compiled_targets(arguments.python) as env:
        for kernel in choose_kernels(chosen):
            found = test_one(kernel, arguments, env)
            failed |= not found.complete or bool(found.failed)
            summary.append(f"vmtest: {kernel.name}: {found}")
            if arguments.record and found.collected:
                keep(kernel, found, size(arguments))
    print("\n".join(summary))
    return int(failed)


def test_one(kernel: Kernel, arguments: argparse.Namespace, env: Mapping[str, str]) -> Round:
    """Run pytest in one kernel; return what it came to, with --resume together with earlier parts.

    The result of each test stays in the cache, also if the guest or this command is stopped.
    """
    selection = arguments.selection or kernel.tests
    argv = pytest_argv(arguments.python, selection, short=arguments.short)
    timeout = arguments.timeout or (SHORT_TIMEOUT if arguments.short else TEST_TIMEOUT)
    folder = cache_dir() / "results" / kernel.name / size(arguments)
    if not arguments.resume:
        shutil.rmtree(folder, ignore_errors=True)
    elif (found := count(read_parts(folder), "")).complete and not found.failed:
        return found
    print(f"vmtest: {kernel.name}: {' '.join(argv[1:])}", flush=True)
    variables = {**env, "VMTEST_PARTS": str(folder), "VMTEST_COMMIT": commit()}
    part = folder / str(len(parts(folder)) + 1)
    try:
        result = run_in_vm(
            kernel, argv, timeout=timeout, memory=arguments.memory << 20, cpus=arguments.cpus,
            env=variables, echo=sys.stdout, output=part,
        )
    except VmtestError as error:
        print(f"vmtest: {kernel.name}: {error}")
        rows = read_parts(folder)
        # pytest has not come to its own summary.
        print(*(f"FAILED {row['test']}\n{row['text']}" for row in failures(rows)), sep="\n")
        return count(rows, str(error).partition(";")[0])
    sys.stderr.write(result.stderr)
    print(f"vmtest: {describe(kernel, result)}")
    unexplained = result.returncode != int(bool(failures(read_rows(part / NAME))))
    return count(read_parts(folder), f"exit code {result.returncode}" if unexplained else "")


def size(arguments: argparse.Namespace) -> str:
    """Return how much of the tests is run: a name of rounds.SIZES, or "chosen"."""
    if arguments.selection:
        return "chosen"
    return "short" if arguments.short else "whole"


def commit() -> str:
    """Return the commit of the checkout; "-dirty" follows if files differ from it."""
    argv = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def keep(kernel: Kernel, found: Round, size: str) -> None:
    """Put a round into the record, and the record into the documentation."""
    record = load()
    record.setdefault(kernel.name, {})[size] = found
    save(record)
    write_support(record)


def run_support(arguments: argparse.Namespace) -> int:
    """Write the table of kernels in docs/support.md from the recorded rounds."""
    write_support(load())
    return 0


@contextmanager
def compiled_targets(python: str) -> Iterator[dict[str, str]]:
    """Compile the live tests' targets, and yield the variable that says where they are."""
    with tempfile.TemporaryDirectory(prefix="vmtest-zoo-") as folder:
        program = Path(folder) / "zoo"
        argv = [python, "-c", COMPILE, str(program)]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        if done.returncode:
            raise VmtestError(f"cannot compile the test targets: {done.stderr.strip()}")
        yield {"PAGEWALK_ZOO": str(program)}


def pytest_argv(python: str, selection: Sequence[str], *, short: bool) -> list[str]:
    """Build the command that `test` runs: pytest on `selection`."""
    marked = ["-m", "vmshort"] if short else []
    # hypothesis takes seconds to import in a guest, and no live test uses it.
    plugins = ["-p", told.__name__, "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    limit = ["-o", f"timeout={ONE_TEST_TIMEOUT}"]
    return [python, "-m", "pytest", *plugins, *limit, *marked, *selection]


def describe(kernel: Kernel, result: Result) -> str:
    """Say in one line how a guest ended."""
    outcome = "ok" if result.returncode == 0 else f"exit code {result.returncode}"
    return (
        f"{kernel.name}: {outcome}, booted in {result.boot_seconds:.1f} s, "
        f"ran for {result.run_seconds:.1f} s"
    )


def choose_kernels(names: Iterable[str]) -> list[Kernel]:
    """Look names up in the table; raises VmtestError for an unknown one."""
    try:
        return [KERNELS[name] for name in names]
    except KeyError as error:
        known = ", ".join(KERNELS)
        raise VmtestError(f"no kernel {error} in the table; choose from {known}") from error


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": run_list,
    "fetch": run_fetch,
    "run": run_run,
    "test": run_test,
    "support": run_support,
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; each command's help is the docstring of its function."""
    parser = argparse.ArgumentParser(
        prog="python -m vmtest",
        description="Boot other kernels under QEMU with this machine's files as the root.",
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    added = {
        name: commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        for name, run in COMMANDS.items()
    }

    added["fetch"].add_argument("kernel", nargs="*", metavar="KERNEL", help="default: all")
    added["fetch"].add_argument("--update", action="store_true", help="look for newer versions")

    added["run"].add_argument("kernel", metavar="KERNEL", help="a name from 'list'")
    added["run"].add_argument("command", nargs="+", metavar="COMMAND", help="put -- before it")
    added["run"].add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write the files that the command leaves in $VMTEST_OUTPUT to this directory",
    )
    added["run"].add_argument("--timeout", type=float, default=600, metavar="SECONDS")

    added["test"].add_argument(
        "selection",
        nargs="*",
        metavar="SELECTION",
        help="arguments for pytest, after -- (default: tests/live, or as the kernel's row says)",
    )
    added["test"].add_argument(
        "--short",
        action="store_true",
        help=f"only {' and '.join(SHORT)}, only tests marked vmshort",
    )
    added["test"].add_argument(
        "--kernel", action="append", metavar="KERNEL", help="only this kernel; may be repeated"
    )
    added["test"].add_argument(
        "--record",
        action="store_true",
        help="keep what it came to in vmtest/results.json and in the table of docs/support.md",
    )
    added["test"].add_argument(
        "--resume",
        action="store_true",
        help="go on with the last round: leave out its tests that passed or were skipped",
    )
    added["test"].add_argument(
        "--python",
        default=sys.executable,
        metavar="FILE",
        help="the interpreter that has pytest (default: this one)",
    )
    added["test"].add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help=f"limit per kernel (default: {TEST_TIMEOUT:.0f}; with --short: {SHORT_TIMEOUT:.0f})",
    )
    for name in ("run", "test"):
        added[name].add_argument(
            "--memory",
            type=int,
            default=2048,
            metavar="MIB",
            help="RAM of the guest in MiB (default: 2048)",
        )
        added[name].add_argument(
            "--cpus",
            type=int,
            default=2,
            metavar="N",
            help="CPUs of the guest (default: 2); one is several times faster on a busy machine",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; print an error as one sentence and return 1."""
    arguments = build_parser().parse_args(argv)
    try:
        code = COMMANDS[arguments.name](arguments)
        sys.stdout.flush()
    except VmtestError as error:
        print(f"vmtest: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Otherwise the interpreter complains again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


if __name__ == "__main__":
    # A caller's timeout sends SIGTERM; turned into an exception, it ends the guest too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
