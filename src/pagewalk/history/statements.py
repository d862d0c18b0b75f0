"""The SQL that comes with pagewalk: views over recordings, and questions to them.

Each is a file, ``views/NAME.sql``, ``questions/NAME.sql`` or ``reports/NAME.sql``: a comment, whose
first line says what it is, and one SELECT. They are in what DuckDB and Spark have in common, and
the views read nothing but each other and the relation ``recordings``, which whoever runs them
makes: the rows of recordings, and of each row the ``host`` and ``time`` of its recording.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from pagewalk.model.errors import BadRequest

HERE = Path(__file__).parent
# In an order in which each reads those before it only.
VIEWS = ("latest", "moments", "processes", "vmas", "pages", "mapped", "frames", "sharing",
         "sharers", "growth", "cgroups", "files", "ram", "caches")
QUESTIONS = (
    "recordings", "programs", "users", "vmas", "swapped", "shared-mappings", "shared-frames",
    "sharing", "huge", "deleted", "grew", "grew-programs", "grew-mappings", "limits", "ram",
    "cached-files", "slab",
)

# Of a data set of many hosts.
REPORTS = ("programs", "mappings", "libraries", "limits", "growth", "outliers", "hosts")


class Statement(NamedTuple):
    """A SELECT: its name, what it is in a sentence, what else there is to say, and its text."""

    name: str
    title: str
    more: str
    sql: str


def views() -> list[Statement]:
    """Return the views, in an order in which they can be made."""
    return [statement("views", name) for name in VIEWS]


def questions() -> list[Statement]:
    """Return the questions."""
    return [statement("questions", name) for name in QUESTIONS]


def question(name: str) -> Statement:
    """Return the question called ``name``; raises BadRequest."""
    if name not in QUESTIONS:
        raise BadRequest(f"there is no question '{name}': pagewalk query --list shows all")
    return statement("questions", name)


def reports() -> list[Statement]:
    """Return the reports on many hosts."""
    return [statement("reports", name) for name in REPORTS]


def report(name: str) -> Statement:
    """Return the report called ``name``, one of REPORTS."""
    return statement("reports", name)


@cache
def statement(kind: str, name: str) -> Statement:
    """Return what is in the file of a view or a question."""
    lines = (HERE / kind / f"{name}.sql").read_text(encoding="utf-8").rstrip("\n").split("\n")
    said = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    sql = "\n".join(line for line in lines if not line.startswith("--"))
    return Statement(name, said[0], " ".join(said[1:]), sql)
