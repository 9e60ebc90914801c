"""Finds the difference between a value and the same value read back from its JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from pydantic import BaseModel

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first path at which two values differ."""

    path: Path
    """Names of fields, keys and positions, from the outside in."""
    before: object
    after: object

    def __str__(self) -> str:
        before, after = type(self.before).__name__, type(self.after).__name__
        path = ".".join(self.path) or "value"
        if before != after:
            return f"{path}: {before} would become {after}"
        return f"{path}: {before} would arrive with another value"


def difference(before: object, after: object) -> Difference | None:
    """The first difference between two values; None when they are equal.

    It is stricter than ``==``: 1.0, 1 and True differ, and so do a tuple and a list. But an int may
    become an equal float or Decimal, since pydantic does not convert the default of such a field.
    Models and dataclasses are compared by their fields, without private attributes.
    """
    return None if _is_clearly_equal(before, after) else _difference(before, after, ())


_LEAVES = frozenset({bool, int, float, str})


def _is_clearly_equal(before: object, after: object) -> bool:
    """Whether two values are equal, found without building paths; False leaves it open.

    It knows the types that nearly all values are made of. Members in another order, cached
    properties and other types are left to ``_difference``.
    """
    if before is after:
        return True
    kind = type(before)
    if kind is not type(after):
        return False
    if kind in _LEAVES:
        return before == after
    if kind is list or kind is tuple:
        ours, others = cast("list[object]", before), cast("list[object]", after)
        return len(ours) == len(others) and all(map(_is_clearly_equal, ours, others))
    if kind is dict:
        mine, theirs = cast("dict[object, object]", before), cast("dict[object, object]", after)
        return (
            len(mine) == len(theirs)
            and all(map(_is_clearly_equal, mine, theirs))
            and all(map(_is_clearly_equal, mine.values(), theirs.values()))
        )
    # isinstance of a model calls a method of pydantic's metaclass, which takes four times as long.
    if BaseModel in kind.__mro__:
        ours, others = cast("BaseModel", before), cast("BaseModel", after)
        return _is_clearly_equal(ours.__dict__, others.__dict__) and _is_clearly_equal(
            ours.__pydantic_extra__, others.__pydantic_extra__
        )
    return False


def _difference(before: object, after: object, path: Path) -> Difference | None:
    if before is after:
        return None
    if type(before) is not type(after):
        same = type(before) is int and type(after) in {float, Decimal} and before == after
        return None if same else Difference(path, before, after)
    if isinstance(before, Mapping):
        entries = cast("Mapping[Any, object]", before)
        return _of_mappings(entries, cast("Mapping[Any, object]", after), path)
    if isinstance(before, Set):
        same = _is_equal(cast("object", before), after)
        same = same and _types(cast("object", before)) == _types(after)
        return None if same else Difference(path, cast("object", before), after)
    parts = _parts(before, path)
    if parts is None:
        return None if _is_equal(before, after) else Difference(path, before, after)
    others = dict(_parts(after, path) or ())
    for name, part in parts:
        if name not in others:
            return Difference(path, before, after)
        if found := _difference(part, others.pop(name), name):
            return found
    return Difference(path, before, after) if others else None


def _of_mappings(
    before: Mapping[Any, object], after: Mapping[Any, object], path: Path
) -> Difference | None:
    # None and "None" are different keys, and so are an enum's member and its text, although equal.
    types: dict[Any, type] = {key: type(cast("object", key)) for key in after}
    if len(before) != len(types) or any(
        types.get(key) is not type(cast("object", key)) for key in before
    ):
        return Difference(path, before, after)
    for key, part in before.items():
        if found := _difference(part, after[key], (*path, str(key))):
            return found
    return None


def _parts(value: object, path: Path) -> Iterable[tuple[Path, object]] | None:
    """The values inside a value, by their paths; None for a value without parts."""
    if isinstance(value, BaseModel):
        return _fields(value, path)
    if dataclasses.is_dataclass(value):
        return (((*path, f.name), getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, (list, tuple)):
        numbered = enumerate(cast("list[object]", value))
        return (((*path, str(number)), part) for number, part in numbered)
    if type(value).__eq__ is object.__eq__ and hasattr(value, "__dict__"):
        return (((*path, name), part) for name, part in vars(value).items())
    return None


def _fields(value: BaseModel, path: Path) -> Iterator[tuple[Path, object]]:
    # The class has the fields; a model's __dict__ also has cached properties.
    for name in type(value).model_fields:
        if name in value.__dict__:
            yield (*path, name), value.__dict__[name]
    for name, part in (value.__pydantic_extra__ or {}).items():
        # An extra field may have the same name as a field that has an alias.
        yield (*path, name if name not in type(value).model_fields else f"{name} (extra)"), part


def _types(values: object) -> Counter[type]:
    return Counter(type(value) for value in cast("Set[object]", values))


def _is_equal(before: Any, after: Any) -> bool:
    try:
        return bool(before == after)
    except Exception:  # noqa: BLE001  # a type's own comparison may raise anything
        return False


def failing_path(value: object, fails: Callable[[object], bool]) -> Path:
    """The path of the innermost part for which ``fails`` is true, as it is for the whole value."""
    path: Path = ()
    while True:
        is_mapping = isinstance(value, Mapping)
        parts = _items(value, path) if is_mapping else _parts(value, path)
        for inner, part in parts or ():
            if fails(part):
                path, value = inner, part
                break
        else:
            return path


def _items(value: object, path: Path) -> Iterator[tuple[Path, object]]:
    for key, part in cast("Mapping[Any, object]", value).items():
        yield (*path, str(key)), part
