"""The options that commands share, as click declares them, and how a shell completes them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.render.columns import Choice

_TABLE_OF = {"ram": "files"}  # the table that a command's --columns are of, if not its own
_WITH = {("ram", "slab"): "slab", ("maps", "huge"): "huge", ("maps", "cache"): "cache",
         ("top", "huge"): "huge_of_each"}
UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # of a duration
LEAST_MEMORY = 64 << 20  # what DuckDB needs to begin with
LONGEST_WATCH = 1_000_000  # seconds, 12 days; the kernel's timers do not take any number


class Request(NamedTuple):
    """The options that every command on a target takes; those on the whole machine have none."""

    source: str
    format: str
    output: str | None
    quiet: bool
    target: str = ""
    freeze: bool = False
    budget: float = 0
    color: str = "auto"
    human: bool | None = None
    watch: float | None = None
    columns: str | None = None
    sort: str | None = None
    limit: int | None = None

    @property
    def budget_ns(self) -> int:
        """Return ``--budget`` in nanoseconds."""
        return int(self.budget * 1e6)


class Within(click.FloatRange):
    """A number in a range. To FloatRange "nan", which no comparison rules out, is in every one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return self.fail(f"'{value}' is not a number", param, ctx) if math.isnan(number) else number


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """Seconds, as a number with an optional unit: 10, 10s, 500ms, 5m, 1h, 7d; 0 if that is told.

    Between ``least`` and ``most``.
    """

    name = "duration"

    def __init__(
        self, *, zero: bool = False, least: float = 0.01, most: float = LONGEST_WATCH * 1000
    ) -> None:
        self.zero, self.least, self.most = zero, least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|)", str(value))
        seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
        if found and self.zero and not seconds:
            return 0.0
        if not found or not 0 < seconds < math.inf:
            return self.fail(f"'{value}' is no duration, such as 500ms, 10s, 5m, 1h or 7d", param,
                             ctx)
        if not self.least <= seconds <= self.most:
            return self.fail(f"'{value}' is not between {self.least:g} and {self.most:g} seconds",
                             param, ctx)
        return seconds


class Size(click.ParamType):  # type: ignore[type-arg]
    """An amount of memory: 500M, 2G, or bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from pagewalk.model.sizes import parse_size

        try:
            size = parse_size(str(value))
        except BadRequest as error:
            self.fail(str(error), param, ctx)
        if size < LEAST_MEMORY:
            self.fail(f"'{value}' is too little: it takes 64M at least", param, ctx)
        return size


memory_option = click.option(
    "--memory", metavar="SIZE", default="2G", show_default=True, type=Size(),
    help="Most memory that the answer may take meanwhile.",
)


def complete_target(_ctx: object, _param: object, typed: str) -> list[str]:
    # Shell completion of TARGET: pids and names of running processes.
    from pagewalk.proc.processes import read_processes

    rows = list(read_processes())
    # A shell inserts completions verbatim: no blanks, quotes, dollars or control characters.
    plain = {p.name for p in rows if re.fullmatch(r"[\w.+@%:,=/-]+", p.name)}
    words = [str(p.pid) for p in rows] + sorted(plain)
    return [word for word in words if word.startswith(typed)]


def complete_source(_ctx: object, _param: object, typed: str) -> list[str]:
    from pagewalk.sources import SOURCES

    return [name for name in ("auto", *SOURCES) if name.startswith(typed)]


def complete_column(ctx: click.Context, _param: object, typed: str) -> list[str]:
    # The last of a list of columns.
    from pagewalk.render.columns import TABLES

    before, comma, last = typed.rpartition(",")
    name = ctx.info_name or ""
    asked = (table for (own, option), table in _WITH.items()
             if own == name and ctx.params.get(option))
    chosen = next(asked, _TABLE_OF.get(name, name))
    table = TABLES[chosen]()
    names = [column.name for column in (*table.naming, *table.others)]
    return [before + comma + name for name in names if name.startswith(last)]


def format_option(*formats: str) -> Callable[[Any], Any]:
    return click.option(
        "--format", "-f", default="text", type=click.Choice(formats), help="Output format."
    )


def source_option(names: str) -> Callable[[Any], Any]:
    return click.option(
        "--source", default="auto", metavar="SOURCE", show_default=True,
        shell_complete=complete_source,
        help=f"What to read from: auto (the best that works here), {names}.",
    )  # fmt: skip


def output_options(
    command: Any, *, quietly: str = "Print no notes and no progress on stderr."
) -> Any:
    quiet = click.option("--quiet", "-q", is_flag=True, help=quietly)
    to_file = click.option("--output", "-o", metavar="FILE",
                           help="Write to FILE (mode 0600, replaced only when complete).")
    color = click.option("--color", default="auto", metavar="WHEN", show_default=True,
                         type=click.Choice(["auto", "always", "never"]),
                         help="Colours in text: auto (on a terminal), always or never.")
    return to_file(quiet(color(command)))


counts_option = click.option(
    "--counts", is_flag=True,
    help="Only count pages: no frames, PSS, USS or kinds, in a third of the time.",
)


budget_option = click.option(
    "--budget", default=5.0, metavar="MS", show_default=True, type=Within(0.1, 1000),
    help="Longest time that a single read may hold the target's lock.",
)


units_option = click.option(
    "--human/--kib", "-H/", default=None,
    help="Amounts in K, M and G, or in KiB (default: on a terminal, if they are large).",
)


watch_option = click.option(
    "--watch", metavar="SECONDS", type=Within(0.1, LONGEST_WATCH),
    help="Show it again every SECONDS, with what has changed in bold; Ctrl-C ends it.",
)


def table_options(command: Any) -> Any:
    """Add the options of a command that shows a table."""
    for option in (
        click.option("--columns", metavar="LIST", shell_complete=complete_column,
                     help="Only these columns: names as they are printed or as in JSON, separated"
                     " by commas."),
        click.option("--sort", metavar="COLUMN", shell_complete=complete_column,
                     help="The largest by COLUMN first, or the first word; -COLUMN: the other way"
                     " round."),
        click.option("--limit", "-n", metavar="N", type=click.IntRange(1),
                     help="Only the first N rows; totals are still those of all."),
    )[::-1]:
        command = option(command)
    return units_option(command)


def choice_of(request: Request, table: str) -> Choice | None:
    """Return what the options ask of ``table``; None, with nothing imported, if there are none."""
    asked = request.columns, request.sort, request.limit
    if asked == (None, None, None):
        return None
    from pagewalk.render.columns import choose

    if request.format == "log":
        raise BadRequest("--format log is always whole, and in its own order: leave out --columns,"
                         " --sort and --limit, or use another format")
    return choose(table, *asked)


def target_options(*formats: str, required: bool = True) -> Callable[[Any], Any]:
    """Return a decorator that adds TARGET and the options of Request to a command."""

    def add(command: Any) -> Any:
        options = (
            click.argument("target", required=required, shell_complete=complete_target),
            source_option("ebpf, kcore, drgn or procfs"),
            format_option(*formats),
            click.option("--freeze", is_flag=True,
                         help="Stop the target (SIGSTOP) during the walk, then resume it."),
            budget_option,
        )
        for option in reversed(options):
            command = option(command)
        return output_options(command)

    return add


def of_machine(options: dict[str, Any]) -> Request:
    """Return the options of a command on the whole machine; raises BadRequest."""
    request = Request(**options)
    check_watch(request)
    return request


def check_watch(request: Request) -> None:
    """Raise BadRequest for what cannot be done again and again."""
    if request.watch and (request.freeze or request.output):
        raise BadRequest("--watch goes on until you end it: leave out --freeze and --output")
    if request.watch and request.format == "log":
        raise BadRequest("--format log has no end that a screen could show: leave out --watch")
