"""The text in the kernel's files: lines, fields, numbers and names."""

from __future__ import annotations

import os
import re

import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.files import decode_name, lines, number, numbers, rows, words
from tests.proc.test_maps import ODD

PAIR = re.compile(rb"(?m)^(\d+) (\d+)\n")


@pytest.mark.parametrize("odd", [o for o in ODD if o not in (b" ", b"\t")], ids=bytes.hex)
def test_only_a_newline_ends_a_line_and_only_blanks_end_a_word(odd: bytes) -> None:
    assert lines(b"a%bb\nc\n" % odd, "x") == [b"a%bb" % odd, b"c"]
    assert words(b" a%bb \t c%b" % (odd, odd)) == [b"a%bb" % odd, b"c%b" % odd]
    assert os.fsencode(decode_name(odd)) == odd


def test_an_empty_file_has_no_lines() -> None:
    assert (lines(b"", "x"), rows(PAIR, b"", "x"), words(b"")) == ([], [], [])


@pytest.mark.parametrize("text", [b"1 2\n3 4", b"1 2\n3\n", b"1 2\n\n", b"1 2\n 3 4\n5 6\n"])
def test_the_first_bad_line_is_reported(text: bytes) -> None:
    assert rows(PAIR, b"1 2\n3 4\n", "x") == [(b"1", b"2"), (b"3", b"4")]
    with pytest.raises(BadText, match="line 2 of x"):
        rows(PAIR, text, "x")


@pytest.mark.parametrize("word", [b"", b"-1", b"+1", b"1_0", b" 1", b"1\r", b"a", b"1" * 21])
def test_an_invalid_number_is_refused(word: bytes) -> None:
    with pytest.raises(ValueError):
        number(word)


def test_the_numbers_of_a_field() -> None:
    status = b"Name:\tUid:\t9\nUid:\t0\t1\t2\t3\nVmPTE:\t      44 kB\nUid:\t7\nCapEff:\tff\n"
    assert numbers(status, b"Uid") == [0, 1, 2, 3]
    assert numbers(status, b"VmPTE") == [44]
    assert numbers(status, b"CapEff", 16) == [255]
    assert numbers(status, b"Seccomp") == []
    with pytest.raises(BadText, match="line 1 of status"):
        numbers(status, b"Name")
