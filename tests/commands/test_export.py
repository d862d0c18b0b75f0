"""The words of `export`, and a package that is not there."""

from __future__ import annotations

import sys

import pytest

from pagewalk.cli import main
from pagewalk.commands.export import address
from pagewalk.model.errors import BadRequest


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("127.0.0.1:9757", ("127.0.0.1", 9757)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:80", ("127.0.0.1", 80)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_an_address_and_a_port(word: str, found: tuple[str, int]) -> None:
    assert address(word) == found


@pytest.mark.parametrize("word", ["", "9757", ":9757", "127.0.0.1", "127.0.0.1:", "127.0.0.1:-1",
                                  "127.0.0.1:65536", "example.org:80", "127.0.0.1:\u0663", "::1"])
def test_what_is_none_is_refused_with_examples(word: str) -> None:
    with pytest.raises(BadRequest, match=r"is no address and port .* 127\.0\.0\.1:9757, \[::1\]"):
        address(word)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--textfile", "/nowhere/x"], "node_exporter only reads files that end in .prom"),
        (["--textfile", "/nowhere/x.prom", "--once"], "choose one"),
        (["--at-most-every", "nan"], "'nan' is no duration, such as 500ms, 10s"),
        (["--source", "bogus"], "no source is called 'bogus'; there are: auto, procfs, ebpf"),
        (["--limit", "0"], "0 is not in the range"),
        (["--listen", "here"], "'here' is no address"),
    ],
)
def test_wrong_usage_is_one_sentence(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_without_the_client_one_sentence_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # import fails
    assert main(["export", "--once"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "pagewalk: export needs the package prometheus-client, which is not"
                              f" installed; {sys.executable} -m pip install prometheus-client\n")
