"""Whatever goes wrong while a recording is read is one sentence; what was wrong before stays."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pagewalk.model.errors import BadRecording, BadRequest
from pagewalk.snapshot.damage import damage, reading


@pytest.mark.parametrize("error", [
    ValueError("odd"), KeyError("odd"), TypeError("odd"), ZeroDivisionError("odd"),
    AssertionError("odd"), AttributeError("odd"), RecursionError("odd"),
])
def test_what_a_wild_value_raises_is_damage(error: Exception) -> None:
    with pytest.raises(BadRecording, match=r"read a\.x as.*it is damaged: .*odd"), damage("a.x"):
        raise error


def test_only_the_first_line_is_told_and_not_all_of_it() -> None:
    with pytest.raises(BadRecording) as raised, damage("a"):
        raise ValueError("x" * 5000 + "\nmore")
    assert "more" not in str(raised.value) and len(str(raised.value)) < 300


def test_what_is_a_sentence_already_stays() -> None:
    with pytest.raises(BadRequest, match="give one"), damage("a"):
        raise BadRequest("give one")
    with pytest.raises(MemoryError), damage("a"):
        raise MemoryError


def test_what_the_kernel_and_arrow_say_is_told() -> None:
    with pytest.raises(BadRecording, match="permission denied"), reading("a"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(BadRecording, match="it is damaged: no magic"), reading("a"):
        raise pa.ArrowInvalid("no magic")
