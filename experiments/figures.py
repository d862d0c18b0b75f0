"""The figures, as SVG: no background, and colours that are readable on white and on black."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from experiments.causes import Shown
from experiments.claims import best, known
from experiments.everyone import Everyone
from experiments.report import Measured
from experiments.runs import Process, Result
from experiments.steps import PAGE

# About as far from white as from black.
INK = "#7d8590"
BLUE, ORANGE, GREEN, RED, PURPLE = "#3d8bd4", "#d9822b", "#3fa372", "#d65a5a", "#9a78d0"
STYLE: dict[str, Any] = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": INK, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "font.size": 10, "axes.titlesize": 10.5, "legend.frameon": False, "figure.facecolor": "none",
    "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.transparent": True,
    "svg.fonttype": "path",
    # So that the same figures produce the same file.
    "svg.hashsalt": "pagewalk",
}
FAMILIES = {  # label: colour, marker, targets
    "hello, top, and (d) (f) (g) (h)": (BLUE, "o", ("hello", "hello-static", "top", "fork",
                                                    "read-only", "hugetlb", "thp", "swap")),
    "Firefox": (RED, "s", ("firefox",)),
    "Chromium": (ORANGE, "D", ("chromium",)),
    "Java": (GREEN, "^", ("jvm",)),
    "PostgreSQL": (PURPLE, "v", ("postgresql",)),
    "16 TiB reserved": (INK, "P", ("reservation",)),
}
LEVELS = {"pmd": "no PTE table", "pud": "no PMD table", "pgd": "no PUD table"}
SHORT = {"status": ("status and statm", BLUE, 2.2), "stat": ("stat", ORANGE, 1.0)}
MIB = 1 << 20

mpl.use("svg")


def save(path: Path) -> None:
    plt.savefig(path, metadata={"Date": None})
    plt.close()
    # matplotlib leaves trailing blanks.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def binary(value: float, _position: object = None) -> str:
    """Return bytes in the largest unit that gives a whole number: 64 KiB, 16 TiB."""
    if value < 1:
        return "0"
    power = min(int(math.log2(value) // 10), 4)
    return f"{value / 1024 ** power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def lag(shown: Shown, path: Path) -> None:
    """Draw how many pages each kernel's counters lag behind smaps, step by step."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(shown.rows), figsize=(9, 3.1), sharey=True)
        for axis, row in zip(axes, sorted(shown.rows, key=lambda r: version(r["release"])),
                             strict=True):
            for name, (label, colour, width) in SHORT.items():
                steps = range(1, len(row["short"][name]) + 1)
                axis.plot(steps, row["short"][name], color=colour, linewidth=width, label=label)
            axis.set_title("Linux " + ".".join(map(str, version(row["release"])[:2])))
            axis.set_xlabel("pages written, one by one")
        axes[0].set_ylabel("pages short of smaps")
        axes[-1].legend(loc="upper right")
        figure.tight_layout()
        save(path)


def version(release: str) -> tuple[int, ...]:
    return tuple(int(word) for word in release.partition("-")[0].partition("+")[0].split("."))


def not_mapped(results: Sequence[Result], everyone: Everyone, path: Path) -> None:
    """Draw the bytes without a page table against the size, one panel per level."""
    rows = {result.target: result.runs[-1].processes for result in results}
    with plt.rc_context(STYLE):
        levels = [level for level in LEVELS if any_at(level, rows, everyone)] or ["pmd"]
        figure, axes = plt.subplots(1, len(levels), figsize=(9, 4.2), sharey=True, squeeze=False)
        for axis, level in zip(axes[0], levels, strict=True):
            axis.plot([MIB, 1 << 45], [MIB, 1 << 45], color=INK, linewidth=0.8, linestyle=":")
            others = [(row["size"], row[f"not_mapped_{level}"]) for row in everyone.processes]
            points(axis, others, INK, ".", "other processes of this machine")
            for label, (colour, marker, names) in FAMILIES.items():
                members = [p for name in names for p in rows.get(name, ())]
                found = [(known(best(p), "size"), known(best(p), f"not_mapped_{level}"))
                         for p in members]
                points(axis, found, colour, marker, label)
            sizes(axis)
            axis.set_title(LEVELS[level])
        axes[0][0].set_ylabel("not mapped")
        figure.tight_layout(rect=(0, 0.14, 1, 1))
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4)
        save(path)


def any_at(level: str, rows: dict[str, list[Process]], everyone: Everyone) -> bool:
    walks = [best(p) for members in rows.values() for p in members]
    return any(known(walk, f"not_mapped_{level}") for walk in walks) or any(
        row[f"not_mapped_{level}"] for row in everyone.processes
    )


def points(axis: Axes, found: Sequence[tuple[float, float]], colour: str, marker: str,
           label: str) -> None:
    if found:
        x, y = zip(*found, strict=True)
        axis.scatter(x, y, c=colour, marker=marker, s=34, alpha=0.8, linewidths=0, label=label)


def sizes(axis: Axes) -> None:
    axis.set_xscale("log", base=2)
    # Linear below a page, so that zero has a place.
    axis.set_yscale("symlog", base=2, linthresh=PAGE, linscale=0.5)
    axis.set_xticks([1 << shift for shift in (20, 30, 40)])
    axis.set_yticks([0, *(1 << shift for shift in (16, 20, 30, 40))])
    axis.xaxis.set_major_formatter(FuncFormatter(binary))
    axis.yaxis.set_major_formatter(FuncFormatter(binary))
    axis.minorticks_off()
    axis.set_xlabel("size")


def sharing(rows: Sequence[dict[str, int]], lagging: Shown | None, path: Path) -> None:
    """Draw RSS minus VmRSS against the part of RSS that is shared."""
    here = [(1 - row["uss"] / row["rss"], (row["rss"] - row["VmRSS"]) // PAGE) for row in rows]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9, 3.2))
        points(axis, here, BLUE, "o", f"{len(here)} processes here")
        for row in lagging.rows if lagging else ():
            if version(row["release"]) < (6, 2):
                old = [(1 - said["private"] / said["smaps"], said["smaps"] - said["status"])
                       for said in row["hello"].values()]
                points(axis, old, ORANGE, "D", "hello world on 6.1: static, and dynamic")
        axis.set_xlabel("part of RSS that other processes map too")
        axis.set_ylabel("RSS less VmRSS, pages")
        axis.set_xlim(-0.02, 1.02)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f} %"))
        axis.legend(loc="best")
        figure.tight_layout()
        save(path)


def groups(result: Result, title: str, path: Path, most: int = 10) -> None:
    """Draw where a family's bytes without a page table are, by what is mapped there."""
    found: dict[str, int] = {}
    for process in result.runs[-1].processes:
        for group in best(process).groups:
            name = called(group["name"], group["perms"])
            found[name] = found.get(name, 0) + (group.get("not_mapped") or 0)
    rows = sorted(found.items(), key=lambda row: row[1])[-most:]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9, 0.7 + 0.32 * len(rows)))
        axis.barh([name for name, _ in rows], [size for _, size in rows], color=BLUE, height=0.6)
        for y, (_, size) in enumerate(rows):
            axis.text(size, y, " " + binary(size), va="center", fontsize=9)
        axis.set_xticks([])
        axis.grid(visible=False)
        axis.margins(x=0.12)
        axis.set_title(title)
        figure.tight_layout()
        save(path)


def called(name: str, perms: str) -> str:
    """Return a short name of a group of VMAs: its file, or what kind of memory it is."""
    if not name:
        return f"anonymous, {perms}" if perms[:3] != "---" else "anonymous, no access"
    if name.startswith(("/memfd:", "/dev/shm/", "/SYSV")):
        return f"shared memory ({name.split(':', maxsplit=1)[0].strip('/')}), {perms}"
    return f"{name.rpartition('/')[2].removesuffix(' (deleted)')}, {perms}"


def sums(results: Sequence[Result], path: Path) -> None:
    """Draw the sums over each family's processes of RSS, PSS and USS."""
    families = [r for r in results if len(r.runs[-1].processes) > 2]
    columns = (("rss", RED, "RSS: shared pages once a process"), ("pss", BLUE, "PSS: once in all"),
               ("uss", GREEN, "USS: not at all"))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(families), figsize=(9, 3), squeeze=False)
        for axis, result in zip(axes[0], families, strict=True):
            members = [best(p) for p in result.runs[-1].processes]
            for x, (name, colour, label) in enumerate(columns):
                total = sum(known(walk, name) for walk in members)
                axis.bar(x, total, color=colour, width=0.65, label=label)
                axis.text(x, total, binary(total), ha="center", va="bottom", fontsize=9)
            axis.set_title(f"{result.target}, {len(members)} processes")
            axis.set_xticks(range(len(columns)), [name.upper() for name, _, _ in columns])
            axis.set_yticks([])
            axis.grid(visible=False)
            axis.margins(y=0.12)
            axis.spines["left"].set_visible(False)
        figure.tight_layout(rect=(0, 0.08, 1, 1))
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=3)
        save(path)




def draw(measured: Measured, folder: Path) -> None:
    """Draw every figure that ``measured`` has the data for, as FOLDER/NAME.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    lagging = measured.shown.get("counter_batching")
    if lagging:
        lag(lagging, folder / "lag.svg")
    not_mapped(measured.results, measured.everyone, folder / "not-mapped.svg")
    sharing(measured.processes, lagging, folder / "sharing.svg")
    for result in measured.results:
        if result.target in ("firefox", "chromium"):
            title = f"{result.target.title()}: not mapped, all its processes"
            groups(result, title, folder / f"{result.target}.svg")
    if any(len(result.runs[-1].processes) > 2 for result in measured.results):
        sums(measured.results, folder / "sums.svg")
