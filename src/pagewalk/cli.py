"""The command line: one parser, and the one place that prints errors and chooses exit codes."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, NoReturn

# One thread is enough for sums over columns; starting more costs 60 ms. Must precede numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click

from pagewalk.commands.options import complete_target
from pagewalk.interrupt import INTERRUPTED
from pagewalk.model.errors import BadTarget, PagewalkError
from pagewalk.render.terminal import harmless, keep_names, say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    name: f"pagewalk.commands.{name}"
    for name in ("overview", "processes", "show", "maps", "pages", "vtop", "explain", "heap", "top",
                 "share", "who", "ram", "cgroups", "record", "diff", "query", "fleet", "export",
                 "check", "run",
                 "doctor")
}

DISTURBING = ("--freeze", "--ask")

EPILOG = """\b
Exit codes: 0 success, 1 failure, 2 usage error, 3 partial (missing privileges
or a race withheld something; the output says what), 4 an unexplained
difference remains, 5 the target is gone, 6 not permitted.

\b
Colours, on a terminal: bold is what the screen is about or, with --watch,
what has changed; dim is a heading, a cause or a remark; green works or
agrees; red is missing, partial or unexplained. No colour says what no word
says. NO_COLOR, FORCE_COLOR and --color decide whether there are any."""


# What people type out of habit, and what it means here.
USUAL = {
    "--json": ["--format", "json"], "--csv": ["--format", "csv"], "-p": [], "--pid": [],
    "--interval": ["--watch"],
}
ELSEWHERE = {
    **dict.fromkeys(("ps", "list", "ls"), "pagewalk processes"),
    **dict.fromkeys(("smem", "procrank"), "pagewalk top"), "free": "pagewalk ram",
    "htop": "pagewalk top", "watch": "pagewalk TARGET --watch 2",
    **dict.fromkeys(("status", "stat", "stats", "info", "describe"), "pagewalk show"),
    **dict.fromkeys(("threads", "stacks"), "pagewalk maps TARGET --by kind"),
    "malloc": "pagewalk heap",
}
# Options of other tools, and which of ours do the same.
HABITS = {
    **dict.fromkeys(("-s", "-k", "--order"), "--sort COLUMN"),
    **dict.fromkeys(("-r", "-R", "--reverse"), "--sort -COLUMN"),
    **dict.fromkeys(("-d", "-w", "-i", "--delay"), "--watch SECONDS"),
    **dict.fromkeys(("--top", "--head", "--lines"), "--limit N"),
    **dict.fromkeys(("-m", "-M", "--mb", "--unit", "--units"), "--human"),
    **dict.fromkeys(("-b", "--bytes"), "--format json"), "-v": "--version",
    **dict.fromkeys(("--no-color", "--no-colour", "--nocolor"), "--color never"),
    "-x": "pagewalk maps TARGET", "-X": "pagewalk maps TARGET --all",
}
# Options that name several processes, which only commands on several have.
SETS = {"--tree": " PID", "--cgroup": " NAME", "--user": " USER", "-u": " USER", "--all": "",
        "-a": ""}
EVERY = "2"  # seconds: --watch without a number
NUMBER = re.compile(r"[0-9]*\.?[0-9]+")


def usual(args: list[str]) -> list[str]:
    """Return ``args`` with a command first: `pagewalk 1 maps --json` is common usage."""
    first = args[0] if args else ""
    if first == "help":
        if args[1:] and args[1] not in COMMANDS:
            raise click.UsageError(f"there is no command '{args[1]}'{did_you_mean(args[1])}")
        return [*args[1:2], "--help"]
    if args == ["version"]:
        return ["--version"]
    if first in ("-h", "--help", "-V", "--version"):
        return args
    if first == "run":  # what follows is another program's
        return args
    # Which options take a value is the command's affair; before it is known, any command's.
    name = next((word for word in args[:2] if word in COMMANDS), "show")
    names = COMMANDS if first.startswith("-") else (name,)
    return led_by_command(*translated(args, set().union(*map(valued, names))))


def led_by_command(args: list[str], own: list[int]) -> list[str]:
    # ``own``: where the words are that are no options and no values of options.
    at = next((at for at in own[:2] if args[at] in COMMANDS), None)
    if at is not None:
        return [args[at], *args[:at], *args[at + 1 :]]
    if len(own) > 1 or any(word.partition("=")[0] in SETS for word in args):
        return ["share", *args]
    return ["show" if own or "--" in args else "overview", *args]


def valued(name: str) -> set[str]:
    """Return the options of command ``name`` that take a value."""
    command: click.Command = importlib.import_module(COMMANDS[name]).command
    return {word for option in command.params
            if isinstance(option, click.Option) and not (option.is_flag or option.count)
            for word in option.opts}


def translated(args: list[str], valued: set[str]) -> tuple[list[str], list[int]]:
    """Return ``args`` with USUAL replaced, and which of them are neither options nor their values.

    ``valued`` are the options that take a value, which is left as it is.
    """
    out: list[str] = []
    own: list[int] = []
    left = args[::-1]
    while left:
        word = re.sub(r"^(-p|--pid=)(?=[0-9]+$)", "", left.pop()).replace("--interval=", "--watch=")
        if word == "--":
            return [*out, word, *left[::-1]], own
        new = USUAL.get(word, [word])
        if not word.startswith("-") or word == "-":
            own.append(len(out))
        out += new
        if len(new) == 1 and takes_value(new[0], valued):
            if new == ["--watch"] and not (left and NUMBER.fullmatch(left[-1])):
                left.append(EVERY)
            out += [left.pop()] if left else []
    return out, own


def takes_value(word: str, valued: set[str]) -> bool:
    # Whether its value is the next word: `-o`, `-qo`, but not `-oFILE` or `--output=FILE`.
    if re.fullmatch("-[A-Za-z]{2,}", word):
        at = next((at for at, letter in enumerate(word) if f"-{letter}" in valued), 0)
        return at == len(word) - 1
    return word in valued


def did_you_mean(word: str) -> str:
    from difflib import get_close_matches

    near = [] if word in COMMANDS else get_close_matches(word, COMMANDS, 1, 0.7)
    meant = ELSEWHERE.get(word) or (f"pagewalk {near[0]}" if near else "")
    return f"; did you mean '{meant}'?" if meant else ""


class Commands(click.Group):
    """The commands by name; anything else is a TARGET for show."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if ctx.resilient_parsing else usual(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("--"):
            return "show", self.get_command(ctx, "show"), args
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The first word may also be a target, but there are too many to list without a prefix.
        found = super().shell_complete(ctx, incomplete)
        if incomplete and not incomplete.startswith("-"):
            from click.shell_completion import CompletionItem

            targets = complete_target(ctx, None, incomplete)
            found += [CompletionItem(word) for word in targets if word not in COMMANDS]
        return found

    def invoke(self, ctx: click.Context) -> object:
        # Here and not in main(): click itself would end the program, with 1.
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return drop_output()
        except EOFError as error:
            # click takes it for Ctrl-D, but nothing is read from a terminal: a compiled module is
            # cut, as Python leaves it behind where files may not be large.
            raise ImportError(str(error)) from error


@click.group(
    "pagewalk", cls=Commands, epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "ignore_unknown_options": True},
)
@click.version_option(None, "-V", "--version", package_name="pagewalk")
def cli() -> None:
    """Show exactly where a Linux process's memory lives, page by page, and why the usual
    numbers disagree.

    `pagewalk` alone shows RAM and the largest processes; `pagewalk TARGET` is `pagewalk show
    TARGET`, and of several it is `pagewalk share TARGET...`. TARGET is a pid, or a name that only
    one process has.

    \b
    pagewalk $$
    pagewalk maps $$
    pagewalk pages $$ --where anon,~exclusive
    pagewalk explain $$
    """


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code; no error escapes as a traceback."""
    if sys.stderr is None:  # closed by the caller: print() would write to stdout instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        return fail("standard output is closed; redirect it to a file, or to /dev/null", 1)
    keep_names(sys.stdout)
    words = sys.argv[1:] if args is None else args
    try:
        code = cli.main(args, prog_name="pagewalk", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except BadTarget as err:
        return fail(f"{err}{'' if err.candidates else did_you_mean(first_word(words))}",
                    err.exit_code)
    except PagewalkError as err:
        return fail(str(err), err.exit_code)
    except click.ClickException as err:
        return misused(err, words)
    except (KeyboardInterrupt, click.Abort):
        return fail(INTERRUPTED, 130)
    except BrokenPipeError:
        return drop_output()
    except OSError as err:
        where = f" {err.filename}" if err.filename else ""
        from pagewalk.proc.files import TOO_MANY, to_do

        remedy = f"; {to_do(err, '')}" if err.errno in TOO_MANY else ""
        return fail(f"cannot read or write{where}: {err.strerror}{remedy}", 1)
    except MemoryError:
        return fail("out of memory", 1)
    except ImportError as err:
        # numpy's message is a page long; its cause, such as a failed mmap of a library, is a line.
        why = str(err.__cause__ or err).strip().rpartition("\n")[2]
        return fail(f"cannot load part of pagewalk: {why}; give it more memory or reinstall it", 1)


def run() -> NoReturn:
    """Run the command line as a program of its own.

    It exits without finalizing the interpreter, which takes 12 ms with numpy loaded.
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


def misused(error: click.ClickException, words: list[str]) -> int:
    # The input may be anything, and a typo must not suggest an option that disturbs the target.
    if isinstance(error, click.NoSuchOption):
        known = [name for name in error.possibilities or () if name not in DISTURBING]
        ours = HABITS.get(error.option_name) or in_a_set(error.option_name)
        error = (click.UsageError(f"{error.message} Did you mean '{ours}'?", error.ctx) if ours else
                 click.NoSuchOption(error.option_name, error.message, known, error.ctx))
    elif isinstance(error, click.UsageError) and "unexpected extra argument" in error.message:
        hint = did_you_mean(first_word(words)) or one_at_a_time(error.ctx)
        error = click.UsageError(error.message + hint, error.ctx)
    said = io.StringIO()
    error.show(said)
    with contextlib.suppress(OSError):
        # Choices of an argument that is missing are listed with tabs.
        print(harmless(said.getvalue().expandtabs(2)), end="", file=sys.stderr)
    return 2


def in_a_set(option: str) -> str:
    """Return the command that takes an option of SETS, empty for any other."""
    return f"pagewalk share {option}{SETS[option]}" if option in SETS else ""


def one_at_a_time(ctx: click.Context | None) -> str:
    """Return what to do with several targets, empty for a command that takes none."""
    takes = [] if ctx is None else [p.name for p in ctx.command.params if p.param_type_name ==
                                    "argument"]
    return "; give one TARGET, or all of them to pagewalk share" if "target" in takes else ""


def first_word(words: list[str]) -> str:
    return next((word for word in words if not word.startswith("-")), "")


def drop_output() -> int:
    # The reader has closed the pipe: what is still buffered must not be written at exit.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        first, *others = harmless(message).split("\n")
        if sys.stderr.isatty():
            say(f"pagewalk: {first}", sys.stderr)
        else:
            print(f"pagewalk: {first}", file=sys.stderr)
        print(*others, sep="\n", end="\n" if others else "", file=sys.stderr)
    return code
