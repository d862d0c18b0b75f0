"""JUnit XML, as the tools that read it expect it."""

from __future__ import annotations

import io
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from pagewalk.history.child import Report
from pagewalk.render.junit import junit
from tests.render.written import HOSTILE, seen, spoiled
from tests.run_by_hand import MIB, report


def suite_of(found: Report) -> Element:
    out = io.StringIO()
    junit(found, out)
    (suite,) = ElementTree.fromstring(out.getvalue().encode())
    return suite


def test_every_budget_is_a_case() -> None:
    suite = suite_of(report())
    cases = {case.attrib["name"]: [part.tag for part in case] for case in suite.iter("testcase")}
    assert cases == {"command": [], "USS at most 204800 KiB": ["failure"],
                     "RSS at most 311296 KiB": ["error"]}
    assert [suite.attrib[name] for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    (failure,) = suite.iter("failure")
    assert failure.attrib["message"] == "USS reached at least 215040 KiB"
    assert "/usr/lib/libc.so.6" in (failure.text or "")


def test_the_values_are_properties() -> None:
    values = {one.attrib["name"]: one.attrib["value"]
              for one in suite_of(report()).iter("property")}
    assert values["pagewalk.uss.budget"] == str(200 * MIB)
    assert values["pagewalk.uss.peak_at_least"] == str(210 * MIB)
    assert values["pagewalk.rss.last_at_most"] == str(308 * MIB)
    assert "pagewalk.pss.budget" not in values


def test_a_command_that_failed_is_a_failure() -> None:
    suite = suite_of(report(rss=308 * MIB)._replace(code=None, signal=11))
    assert suite.attrib["failures"] == "2" and suite.attrib["errors"] == "0"
    messages = [one.attrib["message"] for one in suite.iter("failure")]
    assert "was ended by SIGSEGV" in messages


def test_no_name_breaks_it() -> None:
    odd = spoiled(report(), HOSTILE)._replace(command=(HOSTILE, "]]>", "&amp;"))
    out = io.StringIO()
    junit(odd, out)
    assert seen(out.getvalue())
    assert len(ElementTree.fromstring(out.getvalue().encode())) == 1
