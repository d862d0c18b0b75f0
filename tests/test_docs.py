"""Everything in the outputs is documented: commands, keys, columns, causes."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from pagewalk.account.causes import CAUSES
from pagewalk.account.ledger import BEYOND_RSS, CONCURRENT
from pagewalk.account.table import COLUMNS
from pagewalk.cli import COMMANDS, cli
from pagewalk.history.process_documents import CACHE, HEAP, HUGE, SWAP
from pagewalk.history.record_groups import GROUP
from pagewalk.history.record_ram import KINDS, MISSING
from pagewalk.history.trigger import DOCUMENT
from pagewalk.model.columns import State
from pagewalk.render.metrics import METRICS, SERVED
from pagewalk.render.ram_words import ODD
from pagewalk.sources.recorded import PROCESS
from pagewalk.system.group_ledger import WHY as GROUP_WHY
from pagewalk.system.ram import PARTS
from pagewalk.system.ram_causes import WHY
from pagewalk.system.recorded_processes import SET
from tests.render import written
from tests.test_layers import MODULES, tree

DOCS = Path(__file__).parents[1] / "docs"
JSON_VIEWS = ("processes", "show", "groups", "maps", "pages", "explain", "heap", "vtop", "doctor",
              "ram", "files", "slab", "map", "group", "trigger", "cgroups", "share",
              "top", "who", "overview", "huge", "huge_of_each", "cache", "diff",
              "run")


@cache
def words(page: str) -> frozenset[str]:
    """Return the words in backticks on a page of docs/."""
    return frozenset(re.findall(r"`([^`\n]+)`", (DOCS / page).read_text()))


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def keys(value: Any) -> set[str]:
    """Return every key of a JSON document, at any depth."""
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys(inner)}
    if isinstance(value, list):
        return {key for inner in value for key in keys(inner)}
    return set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_page_with_its_options(name: str) -> None:
    # Options that every command takes are in the index.
    text = (DOCS / "commands" / f"{name}.md").read_text() + (DOCS / "index.md").read_text()
    options = [option for p in command(name).params for option in p.opts if option[:2] == "--"]
    assert [option for option in options if option not in text] == []


@pytest.mark.parametrize("name", JSON_VIEWS)
def test_every_json_key_is_documented(name: str) -> None:
    text = written.write("json", name)
    documents = [json.loads(line) for line in text.splitlines()] if name == "pages" else [
        json.loads(text)
    ]
    found = {key for document in documents for key in keys(document)}
    assert len(found) > 4
    assert sorted(found - words("json.md")) == []


# What docs/json.md calls the document of a view, where that is not the view's name.
CALLED = {"groups": "maps", "files": "ram --files", "slab": "ram --slab", "map": "ram --map",
          "group": "explain CGROUP", "trigger": "explain FILE", "huge": "maps --huge",
          "huge_of_each": "top --huge", "cache": "maps --cache"}


def without() -> dict[str, set[str]]:
    """Return which keys of every document each document lacks, as docs/json.md says."""
    below = (DOCS / "json.md").read_text().partition("| document | has no |")[2]
    table = below.partition("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    return {name: set(re.findall(r"`([^`]+)`", lacks.partition(";")[0]))
            for names, lacks in rows for name in re.findall(r"`([^`]+)`", names)}


@pytest.mark.parametrize("name", JSON_VIEWS)
def test_every_document_has_the_keys_that_all_have_but_those_it_is_said_to_lack(name: str) -> None:
    every = {"schema", "pagewalk", "process", "source", "withheld", "partial", "stall_ns"}
    text = written.write("json", name)
    found = json.loads(text.splitlines()[0] if name == "pages" else text)
    assert every - set(found) == without()[CALLED.get(name, name)]


@pytest.mark.parametrize("name", [column.name for column in COLUMNS])
def test_every_column_has_its_counting_rule(name: str) -> None:
    assert name in words("counting.md")


def test_no_message_names_a_file_that_only_a_clone_has() -> None:
    # Docstrings may; click's commands print theirs as help.
    found = []
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if (isinstance(node, ast.Constant) and isinstance(node.value, str)
                    and re.search(r"\b(docs|scripts|tests)/|\.md\b|README|CONTRIBUTING", node.value)
                    and ast.get_docstring(tree(module), clean=False) != node.value):
                found.append(f"{module}: {node.value[:60]}")
    assert found == []


@pytest.mark.parametrize("name", [*CAUSES, *(row.name for row in BEYOND_RSS), CONCURRENT])
def test_every_cause_is_explained(name: str) -> None:
    assert name in words("counting.md")


@pytest.mark.parametrize("name", WHY)
def test_every_cause_of_the_ledger_of_ram_is_explained(name: str) -> None:
    assert name in words("commands/ram.md")


@pytest.mark.parametrize("name", GROUP_WHY)
def test_every_cause_of_the_ledger_of_a_cgroup_is_explained(name: str) -> None:
    assert name in words("commands/explain.md")


@pytest.mark.parametrize("name", [part.name for part in PARTS])
def test_every_part_of_ram_is_documented(name: str) -> None:
    assert name in words("json.md")


@pytest.mark.parametrize("name", ODD)
def test_every_oddity_of_ram_is_documented(name: str) -> None:
    assert name in words("commands/ram.md")


@pytest.mark.parametrize("state", State, ids=lambda state: state.label)
def test_every_state_of_a_page_is_explained(state: State) -> None:
    assert state.label in words("json.md") | words("counting.md") | words("commands/pages.md")


@pytest.mark.parametrize("name", [PROCESS, HUGE, HEAP, CACHE, SWAP, SET, DOCUMENT, *KINDS, MISSING,
                                  f"{GROUP}PATH"])
def test_every_document_of_a_recording_is_explained(name: str) -> None:
    assert name in words("recording.md")


@pytest.mark.parametrize("name", [*METRICS, *SERVED])
def test_every_metric_is_documented_with_its_labels(name: str) -> None:
    text = (DOCS / "commands" / "export.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line]
    labels = (METRICS | SERVED)[name].labels
    assert all(f"`{label}`" in row for label in labels) or "| the same |" in row
