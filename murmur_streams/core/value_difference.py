"""Where a value differs from the same value read back from its JSON, types included."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place at which two values differ."""

    path: Path
    """Names of fields, keys and positions, from the outside in."""
    before: object
    after: object

    def __str__(self) -> str:
        before, after = type(self.before).__name__, type(self.after).__name__
        place = ".".join(self.path) or "value"
        if before != after:
            return f"{place}: {before} would become {after}"
        return f"{place}: {before} would arrive with another value"


def difference(before: object, after: object, path: Path = ()) -> Difference | None:
    """The first difference between two values; None when they are equal.

    Stricter than ``==``: 1, 1.0 and True are three values, and so are a tuple and a list. Of
    models and dataclasses the fields count, and not private attributes.
    """
    if before is after:
        return None
    if type(before) is not type(after):
        return Difference(path, before, after)
    if isinstance(before, Set):
        same = _is_equal(cast("object", before), after) and _types(
            cast("object", before)
        ) == _types(after)
        return None if same else Difference(path, cast("object", before), after)
    parts = _parts(before, path)
    if parts is None:
        return None if _is_equal(before, after) else Difference(path, before, after)
    others = dict(_parts(after, path) or ())
    for name, part in parts:
        if name not in others:
            return Difference(path, before, after)
        if found := difference(part, others.pop(name), name):
            return found
    return Difference(path, before, after) if others else None


def _parts(value: object, path: Path) -> Iterable[tuple[Path, object]] | None:
    """The values inside a value, by their paths; None when there are none to look at."""
    if isinstance(value, BaseModel):
        fields = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        return (((*path, name), part) for name, part in fields.items() if _is_field(value, name))
    if dataclasses.is_dataclass(value):
        return (((*path, f.name), getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return _items(cast("Mapping[object, object]", value), path)
    if isinstance(value, (list, tuple)):
        numbered = enumerate(cast("list[object]", value))
        return (((*path, str(number)), part) for number, part in numbered)
    if type(value).__eq__ is object.__eq__ and hasattr(value, "__dict__"):
        return (((*path, name), part) for name, part in vars(value).items())
    return None


def _items(value: Mapping[object, object], path: Path) -> Iterator[tuple[Path, object]]:
    # A key's type counts as its text does: None and "None" are two keys, and so are an enum's
    # member and its text.
    for key, part in value.items():
        shown = key if type(key) is str else f"{type(key).__name__} {key!r}"
        yield (*path, shown), part


def _is_field(value: BaseModel, name: str) -> bool:
    # A cached property stands among the fields in a model's __dict__.
    return name in type(value).model_fields or name in (value.__pydantic_extra__ or {})


def _types(values: object) -> Counter[type]:
    return Counter(type(value) for value in cast("Set[object]", values))


def _is_equal(before: Any, after: Any) -> bool:
    try:
        return bool(before == after)
    except Exception:  # noqa: BLE001  # a type's own comparison may raise anything
        return False
