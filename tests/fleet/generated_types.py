"""Types that agents may declare, made by hypothesis with values of theirs."""

# No `from __future__ import annotations`: these classes are made at run time.

import dataclasses
import enum
import itertools
import pathlib
import uuid
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

from hypothesis import reject
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    RootModel,
    SecretStr,
    ValidationError,
    computed_field,
    create_model,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import NamedTuple, TypedDict

T = TypeVar("T")
Values = st.SearchStrategy[Any]
_numbers = itertools.count()


@dataclass(frozen=True)
class Declared:
    """A type, and a strategy for its values."""

    kind: Any
    values: Values
    hashable: bool = False


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Odd(enum.Enum):
    """Its values look like those of other types."""

    ONE = "1"
    NULL = "null"


class Box(BaseModel, Generic[T]):
    item: T


_TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
_TEXTS = st.one_of(
    _TEXT, st.sampled_from(["1", "red", "null", "2026-01-02", str(uuid.UUID(int=7)), "MQ=="])
)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_DATES = st.dates(date(1971, 1, 1))
_TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_NAIVE = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(fold=0)  # two moments that differ in it are equal to Python
)
_JSON: Values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _FLOATS, _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_TEXT, inner, max_size=2)),
    max_leaves=4,
)

LEAVES = [
    Declared(int, st.integers(-(2**70), 2**70), True),
    Declared(bool, st.booleans(), True),
    Declared(float, _FLOATS, True),
    Declared(str, _TEXTS, True),
    Declared(None, st.none(), True),
    Declared(Any, _JSON),
    Declared(Any, st.one_of(st.tuples(st.integers()), _DATES, st.sets(st.integers()))),
    Declared(datetime, _TIMES, True),
    Declared(datetime, _NAIVE, True),
    Declared(date, _DATES, True),
    Declared(time, st.times().map(lambda moment: moment.replace(fold=0)), True),
    Declared(timedelta, st.timedeltas(timedelta(-9_999), timedelta(9_999)), True),
    Declared(uuid.UUID, st.uuids(), True),
    Declared(Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=3), True),
    Declared(bytes, st.binary(max_size=6), True),
    Declared(pathlib.Path, _TEXT.filter(lambda text: "\0" not in text).map(pathlib.Path), True),
    Declared(Colour, st.sampled_from(Colour), True),
    Declared(Level, st.sampled_from(Level), True),
    Declared(Odd, st.sampled_from(Odd), True),
    Declared(Literal["a", 1], st.sampled_from(["a", 1]), True),
    Declared(SecretStr, _TEXT.map(SecretStr), True),
    Declared(date | str, st.one_of(_DATES, _TEXTS), True),
    Declared(datetime | date, st.one_of(_TIMES, _DATES), True),
    Declared(uuid.UUID | str, st.one_of(st.uuids(), _TEXTS), True),
    Declared(bytes | str, st.one_of(st.binary(max_size=3), _TEXTS), True),
    Declared(int | float, st.one_of(st.integers(), _FLOATS), True),
    Declared(int | str, st.one_of(st.integers(), _TEXTS), True),
    Declared(Decimal | float, st.one_of(st.decimals(0, 9, places=1), _FLOATS), True),
    Declared(Colour | str, st.one_of(st.sampled_from(Colour), _TEXTS), True),
    Declared(Odd | str | None, st.one_of(st.sampled_from(Odd), _TEXTS, st.none()), True),
    Declared(set[int] | list[int], st.one_of(st.sets(st.integers()), st.lists(st.integers()))),
]


def _containers(inner: Declared) -> list[Declared]:
    kind, values = inner.kind, inner.values
    some = st.lists(values, max_size=3)
    made = [
        Declared(list[kind], some),
        Declared(tuple[kind, ...], some.map(tuple)),
        Declared(tuple[kind, int], st.tuples(values, st.integers())),
        Declared(dict[str, kind], st.dictionaries(_TEXT, values, max_size=3)),
        Declared(kind | None, st.one_of(values, st.none())) if kind is not None else inner,
        Declared(Box[kind], values.map(lambda value: Box[kind](item=value))),
        Declared(RootModel[kind], values.map(RootModel[kind])),
        _named_tuple(inner),
        _typed_dict(inner),
        _data_class(inner, dataclasses.dataclass),
        _data_class(inner, pydantic_dataclass),
        _distinguished(inner),
    ]
    if inner.hashable:
        keys = st.dictionaries(values, st.integers(), max_size=3)
        made += [
            Declared(set[kind], some.map(set)),
            Declared(frozenset[kind], some.map(frozenset), True),
            Declared(dict[kind, int], keys),
        ]
    return made


def _name() -> str:
    return f"Made{next(_numbers)}"


def _named_tuple(inner: Declared) -> Declared:
    made: Any = NamedTuple(_name(), [("one", inner.kind), ("two", int)])
    return Declared(made, st.builds(made, one=inner.values, two=st.integers()))


def _typed_dict(inner: Declared) -> Declared:
    make: Any = TypedDict  # as a function: the types are known at run time only
    made = make(_name(), {"one": inner.kind, "two": int})
    return Declared(made, st.fixed_dictionaries({"one": inner.values, "two": st.integers()}))


def _data_class(inner: Declared, decorate: Callable[..., Any]) -> Declared:
    made = decorate(type(_name(), (), {"__annotations__": {"one": inner.kind, "two": int}}))
    return Declared(made, st.builds(made, one=inner.values, two=st.integers()))


def _distinguished(inner: Declared) -> Declared:
    left = create_model(_name(), kind=(Literal["left"], "left"), item=(inner.kind, ...))
    right = create_model(_name(), kind=(Literal["right"], "right"), item=(int, ...))
    values = st.one_of(st.builds(left, item=inner.values), st.builds(right, item=st.integers()))
    union: Any = Annotated[left | right, Field(discriminator="kind")]
    return Declared(union, values)


CONFIGS = [
    ConfigDict(),
    ConfigDict(strict=True),
    ConfigDict(extra="forbid"),
    ConfigDict(extra="allow", frozen=True),
    ConfigDict(alias_generator=to_camel),
    ConfigDict(alias_generator=to_camel, extra="forbid", strict=True),
    ConfigDict(alias_generator=AliasGenerator(serialization_alias=to_camel)),
    ConfigDict(alias_generator=AliasGenerator(validation_alias=to_camel)),
    ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"),
    ConfigDict(use_enum_values=True),
]


class _Computed(BaseModel):
    @computed_field
    @property
    def size_of_it(self) -> int:
        return len(type(self).model_fields)


class _Shouting(BaseModel):
    spoken_text: str = "x"

    @field_validator("spoken_text")
    @classmethod
    def _shout(cls, value: str) -> str:
        return value + "!"


class _Lower(BaseModel):
    spoken_text: str = "x"

    @field_validator("spoken_text")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.casefold()


@st.composite
def _models(draw: st.DrawFn, inner: Declared) -> Declared:
    """A model with one field of the inner type, and others of what models have."""
    base = draw(st.sampled_from([BaseModel, BaseModel, _Computed, _Lower, _Shouting]))
    fields: dict[str, Any] = {
        "the_item": (inner.kind, ...),
        "with_default": (int, Field(default_factory=int)),
        "by_choice": (int, Field(1, validation_alias=AliasChoices("choiceA", "choiceB"))),
    }
    if has_json := draw(st.booleans()):
        fields["rows"] = (Json[list[int]], ...)
    if draw(st.integers(0, 9)) == 0:
        fields["left_out"] = (int, Field(0, exclude=True))
    config = draw(st.sampled_from(CONFIGS))
    # Class keywords, since create_model takes either a base or a configuration.
    configured = cast("type[BaseModel]", type(_name(), (base,), {}, **cast("Any", config)))
    made = create_model(_name(), __base__=configured, **fields)
    filled = {"the_item": inner.values, "with_default": st.integers(), "by_choice": st.integers()}
    if has_json:
        filled["rows"] = st.just("[1, 2]")

    def build(values: dict[str, Any]) -> Any:
        try:
            return made.model_validate(values, by_name=True, by_alias=False)
        except ValidationError:
            reject()

    return Declared(made, st.fixed_dictionaries(filled).map(build))


def _extended(inner: st.SearchStrategy[Declared]) -> st.SearchStrategy[Declared]:
    return st.one_of(
        inner.flatmap(lambda one: st.sampled_from(_containers(one))),
        inner.flatmap(_models),
        inner.flatmap(_models),
    )


DECLARED: st.SearchStrategy[Declared] = st.recursive(
    st.sampled_from(LEAVES), _extended, max_leaves=3
)
CASES: st.SearchStrategy[tuple[Any, Any]] = DECLARED.flatmap(
    lambda declared: st.tuples(st.just(declared.kind), declared.values)
)
"""A type and a value of it, as a caller would submit it."""


def shape(value: Any) -> Any:
    """A value and all in it with their types: equal shapes are equal values."""
    name = type(value).__name__
    if isinstance(value, BaseModel):
        extra = value.__pydantic_extra__ or {}
        fields = {field: getattr(value, field) for field in type(value).model_fields} | extra
        return name, {field: shape(part) for field, part in fields.items()}
    if dataclasses.is_dataclass(value):
        return name, {f.name: shape(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return name, sorted((repr(shape(key)), repr(shape(part))) for key, part in items)
    if isinstance(value, Set):
        return name, sorted(repr(shape(part)) for part in cast("Set[Any]", value))
    if isinstance(value, (list, tuple)):
        return name, [shape(part) for part in cast("list[Any]", value)]
    if isinstance(value, SecretStr):
        return name, value.get_secret_value()
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return name, value.timestamp()
    return name, repr(value)
