"""Budgets as JUnit XML, which CI systems show beside their tests."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TextIO

from pagewalk.history.budget import TITLES
from pagewalk.history.child import Report
from pagewalk.history.verdicts import Verdict, properties
from pagewalk.render.amounts import size
from pagewalk.render.run_table import ending, text, withheld
from pagewalk.render.terminal import harmless, printable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def junit(report: Report, out: TextIO) -> None:
    """Write a test suite: a case for each budget, and one for how the command ended."""
    from xml.etree.ElementTree import Element, SubElement, indent, tostring

    limited = [one for one in report.verdicts if one.limit is not None]
    suite = Element("testsuite", {
        "name": f"pagewalk run {printable(' '.join(report.command))}",
        "tests": str(len(limited) + 1), "time": f"{report.seconds:.3f}",
        "failures": str(len(report.exceeded) + (report.code != 0)),
        "errors": str(len(report.unknown)), "skipped": "0"})
    values = SubElement(suite, "properties")
    for name, value in properties(report.verdicts):
        SubElement(values, "property", {"name": name, "value": str(value)})
    case = add_case(suite, "command", report.seconds)
    if report.code != 0:
        SubElement(case, "failure", {"type": "exit", "message": ending(report)})
    for one in limited:
        add_budget(suite, one, report)
    whole = Element("testsuites")
    whole.append(suite)
    indent(whole)
    out.write('<?xml version="1.0" encoding="utf-8"?>\n')
    out.write(tostring(whole, "unicode") + "\n")


def add_case(suite: Element, name: str, seconds: float) -> Element:
    from xml.etree.ElementTree import SubElement

    return SubElement(suite, "testcase", {
        "classname": "pagewalk.run", "name": name, "time": f"{seconds:.3f}"})


def add_budget(suite: Element, one: Verdict, report: Report) -> None:
    from xml.etree.ElementTree import SubElement

    title = TITLES[one.measure]
    case = add_case(suite, f"{title} at most {size(one.limit)}", report.seconds)
    if one.exceeded:
        failure = SubElement(case, "failure", {
            "type": "budget", "message": f"{title} reached at least {size(one.at_least)}"})
        said = io.StringIO()
        text(report, said)
        failure.text = harmless(said.getvalue())
    elif one.exceeded is None:
        why = [row.why for row in withheld(report) if row.partial]
        SubElement(case, "error", {"type": "unknown", "message": printable("; ".join(why))})
