"""`export`, scraped by a real Prometheus, against `top` and the kernel's own numbers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pagewalk.proc.chosen import Wanted, choose
from pagewalk.system import metered
from tests.live.bracket import look_again, working_sources
from tests.live.command import PATIENCE, Ran, begin, end, one_sentence, pagewalk, pagewalk_here
from tests.machine import memory_cgroup
from tests.targets import asleep, start, stop
from tests.test_contrib import ALERTS, CONTRIB, EXPRESSIONS

pytestmark = pytest.mark.live
ALONE = ("setpriv", "--reuid=65534", "--clear-groups")
NOBODY_ELSE = 54321  # a user that no other process belongs to
SOURCES = working_sources()
AMOUNTS = ("uss", "pss", "rss", "swap")
SLOW = ("--longest", PATIENCE)  # not what time suffices for is tested, but what is told then


class Served(NamedTuple):
    """An exporter that runs."""

    process: subprocess.Popen[bytes]
    port: int

    def get(self) -> str:
        """Return what one scrape gets."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            text = answer.read().decode()
        assert answer.status == 200, text
        return text

    def descriptors(self) -> int:
        """Return how many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident(self) -> int:
        """Return its RSS in bytes."""
        said = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert said is not None
        return int(said[1]) << 10


@contextmanager
def export(*words: object) -> Iterator[Served]:
    """Serve until the block ends, on a port that was free."""
    process = begin("export", "--listen", "127.0.0.1:0", "--longest", PATIENCE, *words)
    assert process.stderr is not None
    try:
        said, where = b"", None
        while where is None:
            line = process.stderr.readline()
            said += line
            assert line, said.decode()  # it ended
            where = re.search(rb"http://127\.0\.0\.1:(\d+)/metrics", line)
        yield Served(process, int(where[1]))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with suppress(ValueError):  # its output was read by then
            process.communicate(None, PATIENCE)


def series(text: str) -> dict[tuple[str, str], float]:
    """Return the values of metrics with at most one label, by name and that label."""
    return {(one.name, next(iter(one.labels.values()), "")): one.value
            for family in text_string_to_metric_families(text) for one in family.samples}


def wait(until: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := until()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


# ---- a real Prometheus


@contextmanager
def prometheus(port: int, folder: Path) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Let Prometheus scrape ``port`` every second until the block ends; yields what asks it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = free.getsockname()[1]
    config = folder / "prometheus.yml"
    config.write_text(f"""
global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: pagewalk
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
""")
    words = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{own}"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def ask(query: str) -> list[dict[str, Any]]:
            assert process.poll() is None, "prometheus ended"
            with closing(HTTPConnection("127.0.0.1", own, timeout=PATIENCE)) as connection:
                connection.request("GET", f"/api/v1/query?query={quote(query)}")
                found = json.loads(connection.getresponse().read())
            assert found["status"] == "success", found
            result: list[dict[str, Any]] = found["data"]["result"]
            return result

        def ready() -> bool:
            with suppress(OSError, ValueError):
                return bool(ask('up{job="pagewalk"} == 1'))
            return False

        try:
            wait(ready, "Prometheus to scrape it")
            yield ask
        finally:
            process.kill()


# Two processes that share memory with one another and with nobody else, so that PSS stands still:
# they are linked statically, and the kernel's own pages (vdso), which all map, are unmapped. They
# join the group whose cgroup.procs is argv[1], become user argv[2], and print the child's pid.
ALONE_TOGETHER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char shared[1 << 20], line[512];
	unsigned long start, end;
	FILE *maps = fopen("/proc/self/maps", "r"), *procs = fopen(argv[1], "w");

	if (!procs || fputs("0", procs) < 0 || fclose(procs) || setuid(atoi(argv[argc - 1])))
		return 1;
	memset(shared, 1, sizeof shared);
	while (fgets(line, sizeof line, maps))
		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &start, &end) == 2)
			munmap((void *)start, end - start);
	pid_t child = fork();
	if (!child)
		memset(shared, 2, sizeof shared / 4);
	else
		printf("%d\n", child), fflush(stdout);
	for (;;)
		pause();
}
"""


@contextmanager
def alone_together(folder: Path, group: Path) -> Iterator[tuple[int, int]]:
    """Run ALONE_TOGETHER in ``group`` as a user of its own, stopped, until the block ends."""
    source, program = folder / "target.c", folder / "pagewalk-target"
    source.write_text(ALONE_TOGETHER)
    subprocess.run(["cc", "-static", "-O1", "-o", program, source], check=True)
    words = [program, group / "cgroup.procs", str(NOBODY_ELSE)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        child = 0
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            asleep(child, program.name)
            stop(process.pid, child)
            yield process.pid, child
        finally:
            process.kill()
            if child:
                os.kill(child, signal.SIGKILL)


def test_prometheus_says_what_top_says_of_stopped_processes(tmp_path: Path) -> None:
    with memory_cgroup("export") as group, alone_together(tmp_path, group) as pids:
        asked = {"cgroup": f"/{group.name}", "program": "pagewalk-target", "user": str(NOBODY_ELSE)}
        before = {by: of_top(by, key, pids) for by, key in asked.items()}
        assert before["user"]["processes"] == 2
        assert before["user"]["pss"] > before["user"]["uss"] > 0
        with (export("--at-most-every", 1, "--limit", 10_000) as served,
              prometheus(served.port, tmp_path) as ask):
            for by, key in asked.items():
                assert before[by] == {name: value(ask, f'pagewalk_{by}_{metric}{{{by}="{key}"}}')
                                      for name, metric in METRICS.items()}
            answered(ask, f"/{group.name}")
        assert before == {by: of_top(by, key, pids) for by, key in asked.items()}


def answered(ask: Callable[[str], list[dict[str, Any]]], group: str) -> None:
    """Ask all that the dashboard and the alerts ask; what need not be there may be empty."""
    rare = re.compile(r"swap|unwalked|headroom|limit|removed|remainder|\[|[<>]|up{")
    for text in (*(expr for expr, _ in EXPRESSIONS), *(expr for _, expr in ALERTS)):
        query = text.replace("$instance", ".+").replace("$cgroup", group)
        assert ask(query) or rare.search(query), query


METRICS = {**{name: f"{name}_bytes" for name in AMOUNTS}, "processes": "processes"}


def of_top(by: str, key: str, pids: tuple[int, ...]) -> dict[str, int]:
    """Return the line of ``pids`` in `top`."""
    (line,) = pagewalk_here("top", *pids, "--by", by, "--format", "json").json["lines"]
    assert line["key"] == key
    return {name: line[name] for name in METRICS}


def value(ask: Callable[[str], list[dict[str, Any]]], query: str) -> int:
    (one,) = ask(query)
    return int(float(one["value"][1]))


# ---- what is written


def checked(text: str) -> str:
    """Return what promtool says of metrics in the text format."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                          text=True, check=False)
    return f"{done.stdout}{done.stderr}" if done.returncode else done.stderr


def test_promtool_finds_nothing_wrong_with_it_whatever_a_process_is_called() -> None:
    odd, comm = b'a"b\\c}\xff\x1b[2J', b'q"\t\r\xff{}'
    rename = r"""printf 'q"\t\r\377{}' > /proc/$$/comm; read"""  # and its title has blanks
    with (subprocess.Popen([odd, "1000"], executable="/bin/sleep") as process,
          subprocess.Popen(["of user 31337", "-c", rename], executable="/bin/bash",
                           stdin=subprocess.PIPE) as other):
        try:
            asleep(process.pid, "sleep")
            wait(lambda: Path(f"/proc/{other.pid}/comm").read_bytes() == comm + b"\n", "its name")
            ran = pagewalk("export", "--once", "--limit", 10_000, *SLOW)
        finally:
            process.kill()
            other.kill()
    assert ran.code in (0, 3), ran.err
    assert checked(ran.out) == ""
    programs = {label for name, label in series(ran.out) if name == "pagewalk_program_uss_bytes"}
    assert {r'a"b\c}\udcff\x1b[2J', r'q"\t\r\udcff{}'} <= programs
    assert not any(re.search(r"\d{5,}", program) for program in programs), programs


@pytest.mark.parametrize("words", [("check", "rules", "rules.yml"), ("check", "config",
                                   "prometheus.yml"), ("test", "rules", "rules_test.yml")])
def test_promtool_passes_the_configuration_and_the_alerts(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=CONTRIB / "prometheus", capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ram_and_processes_are_what_the_kernel_says() -> None:
    ran = pagewalk("export", "--once", *SLOW)
    found = series(ran.out)
    total = sum(one.value for family in text_string_to_metric_families(ran.out)
                for one in family.samples if one.name == "pagewalk_ram_bytes"
                and one.labels["use"] != "boot")
    said = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert said is not None and total == int(said[1]) << 10
    walked = found["pagewalk_processes", "walked"]
    assert walked == sum(number for (name, _), number in found.items()
                         if name == "pagewalk_user_processes")


def test_a_group_is_charged_what_its_file_says_and_has_room_to_its_limit() -> None:
    with memory_cgroup("export") as group, start("plain") as running:
        limit = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
        (group / limit).write_text(str(1 << 30))
        (group / "cgroup.procs").write_text(str(running.pid))
        running.stop()
        used = group / ("memory.current" if limit == "memory.max" else "memory.usage_in_bytes")

        def look() -> None:
            before = int(used.read_text())
            found = series(pagewalk_here("export", "--once", "--limit", 10_000, *SLOW).out)
            assert before == int(used.read_text())

            def told(name: str) -> float:
                return found[f"pagewalk_cgroup_{name}_bytes", f"/{group.name}"]

            assert told("charged") == before
            assert told("limit") == 1 << 30
            assert told("headroom") == (1 << 30) - before + told("reclaimable")

        look_again(look)


def test_the_file_for_node_exporter_is_whole_and_anybody_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "pagewalk.prom"
    path.write_text("old\n")
    ran = pagewalk("export", "--textfile", path)
    assert ran.code in (0, 3) and ran.out == "", ran.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [path.name]
    assert checked(path.read_text()) == ""
    assert "pagewalk_age_seconds" not in path.read_text()  # which would never change


@pytest.mark.parametrize("source", [name for name in ("ebpf", "procfs") if name in SOURCES])
def test_processes_are_read_from_the_source_asked_for(source: str) -> None:
    ran = pagewalk("export", "--once", "--source", source, *SLOW)
    assert ran.code in (0, 3), ran.err
    assert f'source="{source}"' in ran.out
    if source == "ebpf":  # no security module is asked: with it the hint of a refusal helps
        assert series(ran.out)["pagewalk_processes", "refused"] == 0


def test_a_source_that_does_not_work_leaves_out_processes_and_says_so() -> None:
    ran = pagewalk("export", "--once", "--source", "ebpf", *SLOW, before=ALONE)
    assert ran.code == 3
    assert "what processes hold: source 'ebpf' is not available" in ran.err
    assert series(ran.out)["pagewalk_processes", "walked"] == 0


def test_what_time_does_not_suffice_for_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with start("fork_three", stopped=True) as running:
        chosen = choose(Wanted(pids=running.pids))
        monkeypatch.setattr(metered, "everyone", lambda: sorted(
            chosen, key=lambda one: -one.process.rss))
        # Begun twice; then there is no time but for the first, which is always walked.
        moments = iter((0.0, 0.0, *[9.0] * 99))
        found = metered.look_at_metered(3.0, clock=lambda: next(moments))
    left = len(running.pids) - 1
    assert found.counts == metered.Counts(walked=1, left=left)
    (walked,), (rest,) = found.lines["program"], found.unwalked["program"]
    assert (walked.name, walked.processes, rest.name, rest.processes) == ("zoo", 1, "zoo", left)
    sizes = sorted(one.process.rss for one in chosen)
    assert (walked.uss or 0) > 0 and (rest.uss, rest.rss) == (None, sum(sizes[:-1]))
    assert any("time for walking processes was up" in row.why for row in found.withheld)


def test_ram_that_is_too_large_is_what_the_kernel_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metered, "everyone", list)
    found = metered.look_at_metered(-1.0)
    assert found.ram.source == "counters" and found.groups is not None
    assert found.groups.amounts.reclaimable is None
    assert sum("do not suffice" in row.why for row in found.withheld) == 2


# ---- served


def test_scrapes_walk_once_and_leave_neither_memory_nor_descriptors_behind() -> None:
    scrapes = 300
    with export("--at-most-every", 1000) as served, ThreadPoolExecutor(4) as threads:

        def scrape(count: int) -> list[str]:
            return list(threads.map(lambda _: served.get(), range(count)))

        first = scrape(scrapes // 4)[0]
        before = served.resident(), served.descriptors()
        texts = scrape(scrapes)
        wait(lambda: served.descriptors() <= before[1], "connections to be closed")
        # One answer kept by each scrape would be twice that.
        assert served.resident() - before[0] < len(first) * scrapes // 2
        assert {series(text)["pagewalk_walks_total", ""] for text in texts} == {1}
        ages = [series(text)["pagewalk_age_seconds", ""] for text in texts]
        assert max(ages) > min(ages) > 0


def test_scrapes_at_one_time_share_a_walk() -> None:
    with export("--at-most-every", 0) as served, ThreadPoolExecutor(8) as threads:
        count = 32
        walks = [series(text)["pagewalk_walks_total", ""]
                 for text in threads.map(lambda _: served.get(), range(count))]
    # It rests between two walks, so even those that want the newest numbers share one.
    assert max(walks) <= count // 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_though_somebody_scrapes(number: signal.Signals) -> None:
    with export("--at-most-every", 0) as served, ThreadPoolExecutor(2) as threads:

        def scrape() -> None:
            with suppress(OSError):
                while served.process.poll() is None:
                    served.get()

        scraping = [threads.submit(scrape) for _ in range(2)]
        served.get()
        served.process.send_signal(number)
        ran = end(served.process)
        for one in scraping:
            one.exception(PATIENCE)
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = pagewalk("export", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert ran.code == 1
    assert "address already in use; end what listens there" in one_sentence(ran)


def test_alone_in_its_namespace_it_still_tells_of_ram() -> None:
    ran = pagewalk("export", "--once", *SLOW, before=("unshare", "--pid", "--fork", "--mount-proc"))
    assert ran.code in (0, 3), ran.err
    found = series(ran.out)
    assert found["pagewalk_processes", "walked"] == 0
    assert found["pagewalk_ram_reclaimable_bytes", ""] > 0
    assert not any(name.startswith("pagewalk_program") for name, _ in found)


def test_a_user_gets_what_he_may_see_and_is_told_what_is_missing() -> None:
    ran: Ran = pagewalk("export", "--once", before=ALONE)
    assert ran.code == 3
    assert "pagewalk: partial: " in ran.err
    found = series(ran.out)
    assert checked(ran.out) == ""
    assert found["pagewalk_withheld", "pagewalk_user_uss_bytes"] == 1
    assert not any(name == "pagewalk_cgroup_headroom_bytes" for name, _ in found)
    assert ("pagewalk_user_uss_bytes", "root") not in found
    assert found["pagewalk_user_unwalked_rss_bytes", "root"] > 0
