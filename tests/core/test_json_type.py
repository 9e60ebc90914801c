"""A declared type and its JSON: a value arrives as an equal one, or is refused with its field."""

# No `from __future__ import annotations`: pydantic reads the types of functions' own classes.

import collections
import dataclasses
import enum
import pathlib
import re
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, cast

import pytest
from pydantic import (
    AliasChoices,
    AliasGenerator,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from murmur_streams.core.json_type import JsonType, loose_json, loose_text
from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model.errors import InvalidPayloadError

T = TypeVar("T")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    max_steps: int = 10


class Choices(BaseModel):
    steps: int = Field(validation_alias=AliasChoices("max_steps", "maxSteps"))
    first: int = Field(validation_alias=AliasPath("limits", "first"))


class WrittenOtherwise(BaseModel):
    model_config = ConfigDict(alias_generator=AliasGenerator(serialization_alias=to_camel))
    max_steps: int


@pydantic_dataclass
class CamelData:
    max_steps: int = Field(alias="maxSteps", default=1)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    day: date
    hour: time
    wait: timedelta
    key: uuid.UUID
    price: Decimal
    pair: tuple[int, str]
    names: set[str]
    raw: bytes
    file: pathlib.Path


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class OpenSecret(BaseModel):
    token: SecretStr

    @field_serializer("token", when_used="json")
    def _open(self, value: SecretStr) -> str:
        return value.get_secret_value()


class WithJson(BaseModel):
    rows: Json[list[int]]


class Area(BaseModel):
    side: int

    @computed_field
    @property
    def area(self) -> int:
        return self.side**2


class ClosedArea(Area):
    model_config = ConfigDict(extra="forbid")


class OpenArea(Area):
    model_config = ConfigDict(extra="allow")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = "Rex"


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Typed(TypedDict, total=False):
    at: date
    name: str


@dataclasses.dataclass
class Data:
    at: datetime
    tags: frozenset[str] = frozenset()


class Box(BaseModel, Generic[T]):
    item: T


class Tree(BaseModel):
    children: list["Tree"] = []


class Names(RootModel[list[str]]):
    pass


class Private(BaseModel):
    shown: int
    _hidden: int = PrivateAttr(default=0)


class Price(BaseModel):
    amount: float = 0
    most: Decimal | None = cast("Decimal", 1)  # a default is taken as it is


STRICT = Strict(
    at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    day=date(2026, 1, 2),
    hour=time(3, 4),
    wait=timedelta(days=1, microseconds=5),
    key=uuid.UUID(int=7),
    price=Decimal("1.50"),
    pair=(1, "a"),
    names={"a", "b"},
    raw=b"raw",
    file=pathlib.Path("/a/b"),
)

ARRIVES: list[tuple[Any, Any]] = [
    (Camel, Camel.model_validate({"maxSteps": 99})),
    (Choices, Choices.model_validate({"maxSteps": 2, "limits": {"first": 3}})),
    (WrittenOtherwise, WrittenOtherwise(max_steps=3)),
    (CamelData, CamelData(maxSteps=7)),
    (list[Camel], [Camel.model_validate({"maxSteps": 1}), Camel()]),
    (Strict, STRICT),
    (Colour, Colour.RED),
    (Number, Number.ONE),
    (dict[Colour, int], {Colour.RED: 1}),
    (OpenSecret, OpenSecret(token=SecretStr("s3cret"))),
    (WithJson, WithJson.model_validate({"rows": "[1, 2]"})),
    (Area, Area(side=3)),
    (ClosedArea, ClosedArea(side=3)),
    (OpenArea, OpenArea.model_validate({"side": 3, "more": [1]})),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(name="Fido")),
    (Point, Point(1)),
    (Typed, {"at": date(2026, 1, 2)}),
    (Data, Data(datetime(2026, 1, 2, tzinfo=UTC), frozenset({"a"}))),
    (Box[date], Box[date](item=date(2026, 1, 2))),
    (Tree, Tree(children=[Tree(), Tree(children=[Tree()])])),
    (Names, Names(["a"])),
    (bytes, b"text"),
    (set[int], {1, 2}),
    (tuple[int, ...], (1, 2)),
    (Decimal, Decimal("0.1")),
    (dict[int, date], {1: date(2026, 1, 2)}),
    (datetime | str, datetime(2026, 1, 2)),  # noqa: DTZ001  # naive ones arrive, too
    (datetime | str, "soon"),
    (int | float, 1.0),
    (collections.deque[int], collections.deque([1])),
    (float, 1e300),
    (int, 2**80),
    (Any, {"a": [1, None, "x", 0.5, True]}),
    (str | None, None),
    (Private, Private(shown=1)),
    (Price, Price()),
    (dict[datetime, int], {datetime(2026, 1, 2, tzinfo=UTC): 1}),
]


@pytest.mark.parametrize("computed", [False, True], ids=["input", "output"])
@pytest.mark.parametrize(("kind", "value"), ARRIVES, ids=[str(kind)[:40] for kind, _ in ARRIVES])
def test_what_is_accepted_arrives(kind: Any, value: Any, computed: bool) -> None:
    """A value that is accepted is read back as an equal value of its type."""
    declared = JsonType(kind, "the input", computed=computed)
    arrived = declared.decode(encode_json(declared.encode(value), "it"))
    assert type(arrived) is type(value)
    assert arrived == value
    if not isinstance(value, SecretStr):
        assert repr(arrived) == repr(value) or isinstance(value, (set, dict, Strict, Data, Price))


class Caller(BaseModel):
    name: str = Field(exclude=True)


class Login(BaseModel):
    user: str
    password: SecretStr | None = None


class Vault(BaseModel):
    keys: list[Secret[int]]


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (Login, "'password' is a secret"),
        (list[Login], "'password' is a secret"),
        (Vault, "'keys' is a secret"),
        (SecretStr, "is a secret"),
        (dict[str, SecretBytes], "is a secret"),
        (Caller, "field 'name' is excluded from JSON"),
        (Box[Caller], "field 'name' is excluded from JSON"),
        (dict[tuple[int, int], str], "keys of type tuple"),
    ],
)
def test_a_type_that_loses_values_is_refused(kind: Any, part: str) -> None:
    """A type whose values would always be lost is refused before there is any value."""
    with pytest.raises(TypeError, match=re.escape(part)) as caught:
        JsonType(kind, "the input of agent 'a'")
    assert "the input of agent 'a'" in str(caught.value)


class Shouting(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def _shout(cls, value: str) -> str:
        return value + "!"


class Animal(BaseModel):
    name: str


class Parrot(Animal):
    age: int


class Pair(enum.Enum):
    ONE_TWO = (1, 2)


@dataclasses.dataclass
class Filled:
    given: int
    filled: int = dataclasses.field(init=False, default=0)


def _changed(value: Filled) -> Filled:
    value.filled = 5
    return value


class Opaque:
    pass


class Collides(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = Field(validation_alias="x")


class Numbers(BaseModel):
    rows: list[Box[float]]
    raw: dict[str, bytes] = {}


class Listed(BaseModel):
    inner: list[Box[date | str]]


@pytest.mark.parametrize(
    ("kind", "value", "part"),
    [
        (date | str, "2026-01-02", "value: str would become date"),
        (uuid.UUID | str, str(uuid.UUID(int=7)), "value: str would become UUID"),
        (bytes | str, "x", "value: str would become bytes"),
        (list[int] | set[int], {1}, "value: set would become list"),
        (dict[str | None, int], {None: 1}, "value: dict"),
        (Listed, Listed(inner=[Box[date | str](item="2026-01-02")]), "inner.0.item: str would"),
        (Shouting, Shouting(text="a"), "text: str would arrive with another value"),
        (Shouting, {"text": "a"}, "text: str would arrive with another value"),
        (Animal, Parrot(name="Ada", age=7), "value: Parrot would become Animal"),
        (Any, (1, 2), "value: tuple would become list"),
        (Any, date(2026, 1, 2), "value: date would become str"),
        (dict[str, Any], {"a": {"b": {1}}}, "a.b: set would become list"),
        (Pair, Pair.ONE_TWO, "cannot be read back"),
        (Filled, _changed(Filled(1)), "filled: int would arrive with another value"),
        (bytes, b"\xff", "cannot be written as JSON"),
        (float, float("nan"), "nan, which JSON cannot express"),
        (Collides, Collides.model_validate({"x": 1, "a": 5}), "a: int would arrive with"),
        (Numbers, Numbers(rows=[Box(item=0.5), Box(item=float("inf"))]), "rows.1.item"),
        (Numbers, Numbers(rows=[], raw={"k": b"\xff"}), "raw.k"),
        (re.Pattern[str], re.compile("a", re.IGNORECASE), "another value"),
    ],
)
def test_a_value_that_would_change_is_refused(kind: Any, value: Any, part: str) -> None:
    """A value that its JSON would change is refused, with the path and both types."""
    declared = JsonType(kind, "the input of agent 'a'")
    with pytest.raises(InvalidPayloadError, match=re.escape(part)) as caught:
        declared.encode(value)
    assert "the input of agent 'a'" in str(caught.value)


def test_json_from_outside_is_read_as_json() -> None:
    """A strict type takes its dates as text from JSON, and from Python by a name alone."""
    declared = JsonType(Strict, "the input")
    sent = STRICT.model_dump(mode="json")
    assert declared.decode(encode_json(declared.encode_json(sent), "it")) == STRICT
    assert declared.decode(encode_json(declared.encode(sent), "it")) == STRICT


def test_a_class_without_json_is_refused() -> None:
    """A plain class has no JSON: the error names the classes that have."""
    with pytest.raises(TypeError, match=r"no JSON form.*use a pydantic model"):
        JsonType(Opaque, "the input of agent 'a'")


class Unfinished(BaseModel):
    other: "DefinedNowhere"  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


def test_a_type_that_is_not_defined_yet_is_refused() -> None:
    """A name that nothing has defined is an error when the agent is registered."""
    with pytest.raises(TypeError, match="not defined yet"):
        JsonType(Unfinished, "the input of agent 'a'")


def test_names_and_aliases_are_both_read() -> None:
    """JSON is written by alias, and read by alias and by name."""
    declared = JsonType(Camel, "the input")
    assert declared.encode({"max_steps": 5}) == declared.encode({"maxSteps": 5}) == {"maxSteps": 5}
    assert declared.decode('{"max_steps": 5}') == Camel.model_validate({"maxSteps": 5})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Area, Area(side=3), {"side": 3, "area": 9}),
        (ClosedArea, ClosedArea(side=3), {"side": 3}),
        (WithJson, WithJson.model_validate({"rows": "[1]"}), {"rows": "[1]"}),
        (WrittenOtherwise, WrittenOtherwise(max_steps=3), {"max_steps": 3}),
    ],
)
def test_an_output_has_computed_fields_if_it_can(kind: Any, value: Any, expected: Any) -> None:
    """Computed fields are in the JSON of an output when the type reads that JSON back."""
    declared = JsonType(kind, "the output", computed=True)
    assert declared.encode(value) == expected
    assert set(declared.schema()["properties"]) == set(expected)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "value",
    [
        None, 1.5, [1, (2, {"a": "é"})], {1: 2, None: 3}, {"a": {date(2026, 1, 2)}}, Colour.RED,
        [Number.ONE], {Colour.RED: Number.ONE}, STRICT, [Area(side=2)], Point(1), uuid.UUID(int=7),
        collections.OrderedDict(a=1), collections.UserString("a"), b"text", Decimal("0.1"),
    ],
)  # fmt: skip
def test_a_value_without_a_type_has_the_text_of_its_json(value: Any) -> None:
    """The text is that of the JSON that pydantic makes; a value without JSON is refused."""
    try:
        expected = encode_json(loose_json(value, "it"), "it")
    except InvalidPayloadError as error:
        with pytest.raises(InvalidPayloadError, match=re.escape(str(error))):
            loose_text(value, "it")
    else:
        assert loose_text(value, "it") == expected


@pytest.mark.parametrize("value", [[float("nan")], "\ud800", object(), 2**1024, SecretStr("a")])
def test_a_value_without_json_is_refused(value: Any) -> None:
    """What neither this package nor pydantic has as JSON raises InvalidPayloadError."""
    with pytest.raises(InvalidPayloadError, match=r"^it "):
        loose_text(value, "it")
