"""Keep what was measured as raw JSON, and read it back: raw/TARGET.json, and raw/machine.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from experiments import runs
from experiments.causes import Shown
from experiments.everyone import Everyone
from experiments.report import Measured
from experiments.targets import TARGETS


def save(measured: Measured, folder: Path) -> None:
    """Write all of ``measured`` to ``folder``, replacing what was there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for result in measured.results:
        runs.write(result, folder)
    document = {
        "about": measured.about,
        "refused": measured.refused,
        "failed": measured.failed,
        "everyone": asdict(measured.everyone),
        "shown": [asdict(shown) for shown in measured.shown.values()],
    }
    (folder / "machine.json").write_text(json.dumps(document, indent=1) + "\n")


def load(folder: Path) -> Measured:
    """Read back what `save` wrote."""
    document = json.loads((folder / "machine.json").read_text())
    shown = [Shown(**row) for row in document["shown"]]
    return Measured(
        about=document["about"],
        refused=document["refused"],
        failed=document["failed"],
        results=[runs.load(path) for name in TARGETS if (path := folder / f"{name}.json").exists()],
        everyone=Everyone(**document["everyone"]),
        shown={row.cause: row for row in shown},
    )
