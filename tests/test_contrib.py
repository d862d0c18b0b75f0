"""The examples in contrib/: what they name exists, and the linters of their kinds pass them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from pagewalk.commands.export import LISTEN
from pagewalk.render.metrics import METRICS, SERVED, families, of_when
from pagewalk.system.containers import Name
from pagewalk.system.group_table import Amounts
from pagewalk.system.top import Line
from tests.render.test_metrics import metered
from tests.system.by_hand import memcgs

CONTRIB = Path(__file__).parents[1] / "contrib"
DASHBOARD = json.loads((CONTRIB / "grafana/pagewalk.json").read_text())
RULES, CONFIG, DAEMONSET = (
    yaml.safe_load((CONTRIB / name).read_text())
    for name in ("prometheus/rules.yml", "prometheus/prometheus.yml", "kubernetes/daemonset.yaml"))
DOCKERFILE = (CONTRIB / "container/Dockerfile").read_text()
UNIT = (CONTRIB / "systemd/pagewalk-armed@.service").read_text()
NAME = re.compile(r"\b(?:pagewalk|process)_\w+")
# What the client tells of the exporter itself.
OURSELVES = {one.name for one in ProcessCollector(registry=CollectorRegistry()).collect()}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield from (panel, *panel.get("panels", ()))


EXPRESSIONS = [(target["expr"], target["legendFormat"])
               for panel in panels() for target in panel.get("targets", ())]
ALERTS = [(rule["alert"], rule["expr"]) for group in RULES["groups"] for rule in group["rules"]]
QUERIES = [one["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]


@pytest.mark.parametrize("text", [
    *(expr for expr, _ in EXPRESSIONS), *QUERIES, *(expr for _, expr in ALERTS)])
def test_every_metric_that_is_asked_for_exists(text: str) -> None:
    known = {*METRICS, *SERVED, *OURSELVES}
    named = set(NAME.findall(text))
    assert named <= known and (named or text.startswith("up{"))


@pytest.mark.parametrize(("expr", "legend"), EXPRESSIONS)
def test_a_legend_only_has_labels_that_the_metric_has(expr: str, legend: str) -> None:
    labels = {label for name in NAME.findall(expr) for label in (METRICS | SERVED).get(
        name, METRICS["pagewalk_stall_seconds"]).labels}
    assert set(re.findall(r"{{(\w+)}}", legend)) <= {*labels, "instance"}


def test_panels_have_a_title_a_description_and_a_place_of_their_own() -> None:
    shown = [panel for panel in panels() if panel["type"] != "row"]
    assert len(shown) > 10
    assert all(panel["title"] and panel["description"].endswith(".") for panel in shown)
    places = [tuple(panel["gridPos"].get(key, 0) for key in "xy") for panel in panels()]
    assert len(set(places)) == len(places)


def test_every_alert_says_what_it_means_and_is_tested() -> None:
    tested = (CONTRIB / "prometheus/rules_test.yml").read_text()
    for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
        assert {"summary", "description"} == set(rule["annotations"])
        assert re.search(rf"alertname: {rule['alert']}\b", tested)


def test_no_machine_has_more_series_than_the_limit_of_a_scrape() -> None:
    # More of everything than have series, and as much as possible of each.
    lines = {by: tuple(Line(f"{by}{at}", f"{by}{at}", 1, at, at, at, at) for at in range(100))
             for by in ("program", "user", "cgroup")}
    groups = memcgs(("/", -1, False, 9, 9), *((f"/{at}", 0, False, at, 9) for at in range(1, 100)))
    found = metered()
    assert found.groups is not None
    table = found.groups._replace(groups=groups, keepers=(), amounts=Amounts(
        *(np.ones(100, np.int64) for _ in Amounts.names)))
    paths = (*groups.path, *(line.name for line in lines["cgroup"]))
    full = found._replace(lines=lines, unwalked=lines, groups=table,
                          names={path: Name("", path) for path in paths})
    made = [*families(full, 20, "1"), *of_when(0, 1)]
    series = sum(len(one.values) for one in made) + len(SERVED) + len(OURSELVES)
    (job,) = CONFIG["scrape_configs"]
    assert 700 < series <= 750 < job["sample_limit"]
    assert job["static_configs"][0]["targets"] == [LISTEN]


def test_hadolint_finds_nothing_wrong_with_the_dockerfile() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, CONTRIB / "container/Dockerfile"], capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_everything_that_the_dockerfile_copies_is_there() -> None:
    copied = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", DOCKERFILE)
    words = [word for line in copied for word in line.split()]
    assert len(words) > 4
    assert [word for word in words if not (CONTRIB.parent / word).exists()] == []


def test_kubernetes_would_take_the_daemonset() -> None:
    words = [sys.executable, "-m", "kubernetes_validate", "-k", "1.31", "--strict",
             str(CONTRIB / "kubernetes/daemonset.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_and_the_daemonset_listen_and_are_asked_on_the_same_port() -> None:
    port = LISTEN.rpartition(":")[2]
    pod = DAEMONSET["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == int(port)
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == port
    assert f"0.0.0.0:{port}" in container["args"] and f"EXPOSE {port}" in DOCKERFILE
    assert {*container["startupProbe"]["httpGet"].items()} >= {("path", "/healthz")}


def capabilities_of_the_unit() -> list[str]:
    """Return them as setpriv calls them."""
    (words,) = re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", UNIT)
    return [word.removeprefix("CAP_").lower() for word in words.split()]


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Return the unit of a service, for a pagewalk that is there."""
    command = tmp_path / "pagewalk"
    command.touch(0o755)
    path = tmp_path / "pagewalk-armed@shop.service"
    path.write_text(UNIT.replace("/usr/local/bin/pagewalk", str(command)))
    return path


def analyzed(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, words)], capture_output=True, text=True,
                          check=False)


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = analyzed("verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    unit.write_text(unit.read_text().replace("ProtectHome", "ProtectHouse"))
    assert "ProtectHouse" in analyzed("verify", "--man=no", unit).stderr


def test_the_unit_has_few_rights(unit: Path) -> None:
    # 9.6 of 10 is a unit without any of it; what is left is named at its end.
    assert analyzed("security", "--offline=yes", "--threshold=17", unit).returncode == 0
    unit.write_text(re.sub(r"(?m)^CapabilityBoundingSet=.*\n", "", unit.read_text()))
    assert analyzed("security", "--offline=yes", "--threshold=17", unit).returncode == 1
