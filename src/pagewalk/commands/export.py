"""pagewalk export: what the other commands show, as metrics for Prometheus."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import click

from pagewalk import commands
from pagewalk.commands.options import LONGEST_WATCH, Duration, Request, source_option
from pagewalk.model.errors import BadRequest

if TYPE_CHECKING:
    from pagewalk.model.columns import Withheld
    from pagewalk.render.metrics import Family
    from pagewalk.system.recent import Latest, Recent

LISTEN = "127.0.0.1:9757"
SUFFIX = ".prom"  # what node_exporter's collector reads
ENDING = {signal.SIGTERM, signal.SIGINT}


@click.command("export", short_help="Metrics for Prometheus: who has the memory, RAM, cgroups.")
@click.option("--listen", metavar="ADDRESS:PORT", default=LISTEN, show_default=True,
              help="Where to serve http://ADDRESS:PORT/metrics; port 0: any that is free.")
@click.option("--once", is_flag=True, help="Print the metrics and end.")
@click.option("--textfile", metavar="FILE",
              help="Write the metrics to FILE and end: for node_exporter's textfile collector.")
@click.option("--at-most-every", "every", metavar="TIME", default="15s", show_default=True,
              type=Duration(zero=True, most=LONGEST_WATCH),
              help="Answer from the last walk until it is so old.")
@click.option("--longest", metavar="TIME", default="2s", show_default=True,
              type=Duration(least=0.1, most=3600),
              help="How long processes may be walked, and RAM scanned, in one look.")
@click.option("--limit", "-n", metavar="N", default=20, show_default=True,
              type=click.IntRange(1, 10_000),
              help="Only the N largest programs, users and cgroups have series of their own.")
@source_option("ebpf, kcore, drgn or procfs; RAM and cgroups are always read in the best way")
@click.option("--quiet", "-q", is_flag=True, help="Print no notes on stderr.")
def command(
    listen: str, once: bool, textfile: str | None, every: float, longest: float, limit: int,
    source: str, quiet: bool,
) -> int:
    """Serve metrics for Prometheus until Ctrl-C or SIGTERM: what each program, user and cgroup
    holds alone, PSS, RSS and swap, what RAM is used for, and how near cgroups are to their limits.

    \b
    pagewalk export --once
    pagewalk export --textfile /var/lib/node_exporter/pagewalk.prom
    pagewalk export --listen 127.0.0.1:9757 --at-most-every 1m
    """
    from pagewalk.commands.scraped import as_text, client
    from pagewalk.system.recent import Recent

    request = Request(source=source, format="text", output=textfile, quiet=quiet)
    check(textfile, source, once=once)
    client()  # before a walk that nobody could read
    commands.look_for_garbage()
    look = partial(told, source, longest, limit)
    if not (once or textfile):
        return serve(request, Recent(in_one_thread(look), every), *address(listen))
    with commands.output(textfile, mode=0o644) as out:
        latest = Recent(look, every).latest()
        out.write(as_text(lambda: series(latest)))
    return commands.concluded(request._replace(format="prometheus"), latest.found.withheld)


def check(textfile: str | None, source: str, *, once: bool) -> None:
    """Raise BadRequest for no source, a file that nobody would read, or two places to write to."""
    from pagewalk.sources import check_name

    check_name(source)  # a look would take it for one that does not work, and tell of no process
    if textfile is None:
        return
    if once:
        raise BadRequest("--once prints the metrics and --textfile writes them: choose one")
    if not textfile.endswith(SUFFIX):
        raise BadRequest(f"node_exporter only reads files that end in {SUFFIX}: give FILE such a"
                         " name")


def address(word: str) -> tuple[str, int]:
    """Return the ADDRESS and the PORT of --listen; raises BadRequest."""
    from ipaddress import ip_address

    host, colon, port = word.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
        good = bool(colon) and port.isascii() and port.isdigit() and int(port) < 1 << 16
    except ValueError:
        good = False
    if not good:
        raise BadRequest(f"'{word}' is no address and port to listen on: give, for example,"
                         f" {LISTEN}, [::1]:9757, or 0.0.0.0:9757 for all addresses")
    return host, int(port)


class Told(NamedTuple):
    """The metrics of one look, and what is missing from them."""

    families: list[Family]
    withheld: tuple[Withheld, ...]


def told(source: str, longest: float, limit: int) -> Told:
    """Look, and return what there is to tell; raises BadText."""
    from pagewalk.render.metrics import families
    from pagewalk.system.metered import look_at_metered

    found = look_at_metered(longest, source)
    return Told(families(found, limit, version()), found.withheld)


def series(latest: Latest[Told]) -> list[Family]:
    """Return the metrics of the last look, and when that was."""
    from pagewalk.render.metrics import of_when

    return [*latest.found.families, *of_when(latest.at, latest.made)]


def in_one_thread(look: Callable[[], Told]) -> Callable[[], Told]:
    """Return what calls ``look`` in the same thread each time, and waits for it.

    What each thread of a server frees stays with the thread's own part of malloc: with a few walks
    in each, 85 MB become 150.
    """
    from concurrent.futures import ThreadPoolExecutor

    walker = ThreadPoolExecutor(1, initializer=leave_signals)
    return lambda: walker.submit(look).result()


def leave_signals() -> None:
    """Leave what ends us to the one who waits for it, in this thread and those it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def version() -> str:
    from importlib.metadata import version

    return version("pagewalk")


def serve(request: Request, recent: Recent[Told], host: str, port: int) -> int:
    """Serve until a signal ends it; the first look is made before, and says what is missing."""
    from threading import Thread

    from pagewalk.commands.scraped import PATH, Server, handler
    from pagewalk.render.metrics import AGE, Family

    def look() -> Iterator[Family]:
        latest = recent.latest()
        yield from series(latest)
        yield Family(AGE, {(): latest.age})

    with Server(host, port, handler(look)) as server:
        commands.concluded(request._replace(format="prometheus"), recent.latest().found.withheld)
        leave_signals()
        Thread(target=server.serve_forever, daemon=True).start()
        where = f"[{host}]" if ":" in host else host
        commands.note(request, f"metrics are at http://{where}:{server.server_port}{PATH}; Ctrl-C"
                               " or SIGTERM ends it")
        signal.sigwait(ENDING)
        server.shutdown()
    return 0
