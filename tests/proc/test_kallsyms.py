"""/proc/kallsyms: names of functions, on lines written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pagewalk.model.errors import BadText
from pagewalk.proc.kallsyms import apart, names_at, parse_kallsyms

TEXT = b"""0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000000 T first_of_two
ffffffff81000100 t second
ffffffff81000200 D data
ffffffffc0001000 t in_module\t[some_module]
ffffffff81000180 W weak
"""


def names(text: bytes, *addresses: int) -> list[str | None]:
    return names_at(parse_kallsyms(text), np.array(addresses, np.uint64))


def test_an_address_is_in_the_last_function_before_it() -> None:
    start = 0xFFFFFFFF81000000
    assert names(TEXT, start + 0xFF, start + 0x100, start + 0x17F) == ["_text", "second", "second"]
    assert names(TEXT, start + 0x1000, start) == ["weak", "_text"]


def test_a_function_of_a_module_has_its_name() -> None:
    assert names(TEXT, 0xFFFFFFFFC0001010) == ["in_module [some_module]"]


def test_below_all_functions_there_is_none() -> None:
    assert names(TEXT, 0, 0xFFFFFFFF80FFFFFF) == [None, None]
    assert names(TEXT) == []


def test_hidden_addresses_are_no_names() -> None:
    hidden = b"0000000000000000 T _text\n0000000000000000 t second\n"
    assert names(hidden, 0xFFFFFFFF81000000) == [None]
    assert names(b"", 1) == [None]


def test_a_name_may_be_any_bytes() -> None:
    found = names(b"00000000000000ff t \xff\x1b\x0b\n", 0xFF)
    assert found == [b"\xff\x1b\x0b".decode("utf-8", "surrogateescape")]


@pytest.mark.parametrize(
    "text", [TEXT[:-1], TEXT + b"\n", b"ffffffff8100000g T _text\n", b"ffffffff81000000 T \n"]
)
def test_other_text_is_refused(text: bytes) -> None:
    with pytest.raises(BadText):
        parse_kallsyms(text)


@pytest.mark.parametrize(("start", "end", "bytes_"), [
    (b"0000000000000000 A", b"0000000000036000 A", 0x36000),  # x86-64 before 6.15
    (b"ffffffff82e00000 D", b"ffffffff82e36a00 D", 0x36A00),
    (b"0000000000000000 D", b"0000000000000000 D", None),  # hidden
])  # fmt: skip
def test_how_far_symbols_are_apart(start: bytes, end: bytes, bytes_: int | None) -> None:
    first, last = start + b" __per_cpu_start\n", end + b" __per_cpu_end\n"
    symbols = ("__per_cpu_start", "__per_cpu_end")
    assert apart(parse_kallsyms(TEXT + first + last), *symbols) == bytes_
    assert apart(parse_kallsyms(TEXT + last), *symbols) is None
    assert apart(parse_kallsyms(first), *symbols) is None
