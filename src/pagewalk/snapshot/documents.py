"""Typed results as JSON and back: what tuples, dataclasses and numpy columns a document is of.

A reader rebuilds only what the annotations of the type that it expects say, so a hostile file can
give wrong values, but no code and no other type.
"""

from __future__ import annotations

import base64
import json
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from math import isfinite
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from pagewalk.model.columns import Rows

DEEPEST = 40
# Halves of characters that no byte of a name is read as (surrogateescape, PEP 383).
NO_NAME = re.compile("[\ud800-\udc7f\udd00-\udfff]")
Read = TypeVar("Read")


class Malformed(Exception):
    """Raised for a document that is not of the type that was expected."""


def to_text(value: Any) -> str:
    """Return ``value`` as a document: NamedTuples, dataclasses, Rows, tuples, dicts, enums, text.

    Numbers may be arrays. Text may have surrogates, for bytes of names that are not UTF-8; they
    stay as escapes. Bytes are names too.
    """
    return json.dumps(plain(value), separators=(",", ":"))


def from_text(text: str, kind: type[Read] | Any) -> Read:
    """Return the value of type ``kind`` in a document; raises Malformed."""
    try:
        found: Read = built(json.loads(text), kind, 0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as err:
        raise Malformed(f"{type(err).__name__}: {err}") from None
    return found


def plain(value: Any) -> Any:
    """Return ``value`` as what JSON has."""
    if isinstance(value, np.ndarray):
        kind = value.dtype.str
        return {"dtype": kind, "shape": value.shape,
                "data": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Rows):
        return [plain(getattr(value, name)) for name in value.names]
    if is_dataclass(value):
        return [plain(getattr(value, one.name)) for one in fields(value)]
    if isinstance(value, Mapping):
        return [[plain(key), plain(one)] for key, one in value.items()]
    if isinstance(value, tuple | list | set | frozenset):
        return [plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a document cannot hold {type(value).__name__}")


def built(value: Any, kind: Any, depth: int) -> Any:
    """Return the plain ``value`` as ``kind``, a type or an annotation; raises Malformed and others.

    ``kind`` may be a union with None, a NamedTuple, a dataclass, Rows, an array, a tuple, list,
    dict or enum.
    """
    if depth > DEEPEST:
        raise Malformed("nested too deeply")
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return one_of(value, inner, depth)
    if kind is Any:
        return value
    if origin is np.ndarray or kind is np.ndarray:
        return array(value, inner)
    if origin in CONTAINERS:
        return CONTAINERS[origin](value, inner, depth + 1)
    if not isinstance(kind, type):
        raise Malformed(f"{kind} is not known")
    return of_class(value, kind, depth + 1)


def one_of(value: Any, kinds: tuple[Any, ...], depth: int) -> Any:
    """Return ``value`` as the first of the types ``kinds`` that it fits; raises Malformed."""
    if value is None and type(None) in kinds:
        return None
    wrong: Exception = Malformed("no type fits")
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return built(value, kind, depth + 1)
        except (Malformed, ValueError, TypeError, KeyError) as err:
            wrong = err
    raise Malformed(str(wrong))


def of_class(value: Any, kind: type, depth: int) -> Any:
    """Return ``value`` as a ``kind``: an enum, Rows, a record, or one value.

    Raises Malformed, and KeyError, TypeError, ValueError for what ``kind`` itself refuses.
    """
    if issubclass(kind, Enum):
        return kind[checked(value, str)]
    if issubclass(kind, Rows):
        columns = zip(kind.names, checked(value, list), strict=True)
        hints = hints_of(kind)  # type: ignore[arg-type]
        made = [built(one, hints[name], depth) for name, one in columns]
        if len({len(one) for one in made if one is not None}) > 1:
            raise Malformed(f"{kind.__name__} with columns of several lengths")
        return kind(*made)
    names = [one.name for one in fields(kind)] if is_dataclass(kind) else (
        getattr(kind, "_fields", None) if issubclass(kind, tuple) else None)
    if names is not None:
        hints = hints_of(kind)  # type: ignore[arg-type]
        # a later version may have appended fields with defaults
        many = len(checked(value, list))
        return kind(*(built(one, hints[name], depth)
                      for name, one in zip(names[:many], value, strict=True)))
    if kind is bytes:
        text: str = checked(value, str)
        return text.encode("utf-8", "surrogateescape")
    if kind is float and type(value) is int:
        return float(value)
    return checked(value, kind)


def checked(value: Any, kind: type) -> Any:
    """Return ``value`` if it is a ``kind`` that pagewalk may have written; raises Malformed."""
    if type(value) is not kind:
        raise Malformed(f"{type(value).__name__} where {kind.__name__} was expected")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise Malformed("a number that is too large")
    if isinstance(value, str) and NO_NAME.search(value):
        raise Malformed("a text that no name can be")
    if isinstance(value, float) and not isfinite(value):
        raise Malformed("a number that is none")
    return value


def array(value: Any, inner: tuple[Any, ...]) -> Any:
    # The annotation is ndarray[shape, dtype[scalar]].
    data = base64.b64decode(checked(checked(value, dict)["data"], str), validate=True)
    found = np.frombuffer(data, np.dtype(simple(value["dtype"]))).reshape(value["shape"])
    if inner:
        scalar = get_args(inner[1])[0]
        if isinstance(scalar, type) and not issubclass(found.dtype.type, scalar):
            raise Malformed(f"an array of {found.dtype} where {scalar.__name__} was expected")
    return found.copy()  # a view of bytes is read-only


def simple(name: Any) -> str:
    # Numbers only: numpy's other types may hold objects.
    if checked(name, str)[:2] not in ("<i", "<u", "<f", "|u", "|i", "|b"):
        raise Malformed(f"an array of {name}")
    return str(name)


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def as_tuple(value: Any, inner: tuple[Any, ...], depth: int) -> tuple[Any, ...]:
    rows = checked(value, list)
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(built(one, inner[0], depth) for one in rows)
    return tuple(built(one, kind, depth) for one, kind in zip(rows, inner, strict=True))


def as_list(value: Any, inner: tuple[Any, ...], depth: int) -> list[Any]:
    return [built(one, inner[0], depth) for one in checked(value, list)]


def as_dict(value: Any, inner: tuple[Any, ...], depth: int) -> dict[Any, Any]:
    return {built(key, inner[0], depth): built(one, inner[1], depth)
            for key, one in checked(value, list)}


def as_set(value: Any, inner: tuple[Any, ...], depth: int) -> set[Any]:
    return set(as_list(value, inner, depth))


def as_frozenset(value: Any, inner: tuple[Any, ...], depth: int) -> frozenset[Any]:
    return frozenset(as_list(value, inner, depth))


CONTAINERS: dict[Any, Callable[[Any, tuple[Any, ...], int], Any]] = {
    tuple: as_tuple, list: as_list, dict: as_dict, Mapping: as_dict, set: as_set,
    frozenset: as_frozenset,
}
