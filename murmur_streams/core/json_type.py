"""The JSON of declared types: a value that would not be read back as an equal one is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

from pydantic import (
    ConfigDict,
    JsonValue,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic.errors import (
    PydanticInvalidForJsonSchema,
    PydanticSchemaGenerationError,
    PydanticUserError,
)
from pydantic.json_schema import GenerateJsonSchema

from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model.errors import InvalidPayloadError
from murmur_streams.core.value_difference import difference, failing_path

MAX_SHOWN_ERRORS = 5
_PAGE = "see “Types that arrive” in docs/fleet.md"
_NO_KEYS = frozenset({"tuple", "list", "set", "frozenset", "dict", "model", "dataclass"})
"""The core schemas of types that cannot be keys in JSON."""

Node = dict[str, Any]


class JsonType:
    """Encodes and decodes the values of one type.

    Both directions use pydantic's JSON mode. A value is encoded only if its JSON is read back as an
    equal value of the same type. A type whose values would always be lost is refused at once.

    The JSON has the fields' aliases if the type can read its own aliases, and else their names;
    decoding accepts both.

    Args:
        kind: the type; Any for none.
        what: the thing of that type, for errors, such as "the input of agent 'a'".
        computed: whether the JSON has computed fields, for readers that do not have the type.

    Raises:
        TypeError: the type has no JSON, or a field of it would lose its value; the text names the
            field and says what to do.
    """

    def __init__(self, kind: Any, what: str, *, computed: bool = False) -> None:
        self._what = what
        self._adapter = adapter = _adapter(kind, what)
        nodes = list(_nodes(adapter.core_schema))
        _refuse_losses(nodes, what)
        for name in _masked(adapter.core_schema, "value"):
            raise TypeError(f"{what}: {name!r} is a secret: {_SECRETS_TURN_TO_STARS}")
        self._computed = computed
        self._round_trip = not computed or _needs_round_trip(nodes)
        fits = _has_one_alias if self._round_trip else _reads_its_alias
        self._by_alias = all(fits(name, field) for name, field in _fields(nodes))

    def encode(self, value: object) -> JsonValue:
        """The JSON of an instance of the type, or of a value that pydantic converts to one.

        Raises:
            InvalidPayloadError: it does not fit the type, or would not arrive as an equal value.
        """
        return decode_json(self.encode_text(value))

    def encode_text(self, value: object) -> str:
        """The same as JSON text."""
        return self._text(self._validated(value))

    def encode_json(self, value: JsonValue) -> JsonValue:
        """The JSON of a value that came as JSON from outside: defaults are filled in.

        Raises:
            InvalidPayloadError: it does not fit the type, or would not arrive as an equal value.
        """
        return decode_json(self._text(self.decode(encode_json(value, self._what))))

    def decode(self, text: str) -> object:
        """Read a value from JSON text.

        Raises:
            InvalidPayloadError: it does not fit the type.
        """
        try:
            return self._read(text)
        except ValidationError as error:
            raise InvalidPayloadError(f"{self._what} does not fit: {_shown(error)}") from None

    def schema(self) -> dict[str, JsonValue]:
        """The JSON Schema of an input as callers send it, or of an output as they receive it.

        Empty when pydantic has none for the type.
        """
        mode = "validation" if self._round_trip else "serialization"
        by_alias = self._by_alias or not self._computed
        return _schema_of(self._adapter, mode, by_alias=by_alias)

    def _read(self, text: str) -> object:
        return self._adapter.validate_json(text, by_alias=True, by_name=True)

    def _validated(self, value: object) -> object:
        try:
            return self._adapter.validate_python(value, by_alias=True, by_name=True)
        except ValidationError as error:
            refused = InvalidPayloadError(f"{self._what} does not fit: {_shown(error)}")
        # A strict type accepts a date as a ``date`` from Python, and as text from JSON. A caller
        # that knows the agent only by its name has the JSON.
        try:
            return self._read(encode_json(value, self._what))
        except (InvalidPayloadError, ValidationError):
            raise refused from None

    def _text(self, value: object) -> str:
        try:
            dumped = self._adapter.dump_python(
                value,
                mode="json",
                by_alias=self._by_alias,
                round_trip=self._round_trip,
                warnings="none",
            )
        except ValueError as error:
            # pydantic-core's serialisation errors are ValueErrors without a shared public base.
            path = _path_without_json(value)
            raise InvalidPayloadError(
                f"{self._what} cannot be written as JSON: {path}: {error}"
            ) from None
        try:
            text = encode_json(dumped, self._what)
        except InvalidPayloadError as error:
            raise InvalidPayloadError(f"{error} (at {_path_without_json(value)})") from None
        try:
            arrived = self._read(text)
        except ValidationError as error:
            raise InvalidPayloadError(
                f"{self._what} cannot be read back from its own JSON: {_shown(error)}; {_PAGE}"
            ) from None
        if found := difference(value, arrived):
            raise InvalidPayloadError(
                f"{self._what} does not survive as JSON: {found}; declare a type that reads its "
                f"own JSON back unchanged, and write defaults as values of their type ({_PAGE})"
            )
        return text


def loose_text(value: object, what: str) -> str:
    """The text of ``loose_json``; quicker for a value that is JSON already, as most are."""
    try:
        return encode_json(value, what)
    except InvalidPayloadError:
        return encode_json(loose_json(value, what), what)


def loose_json(value: object, what: str, *, by_alias: bool = True) -> JsonValue:
    """The JSON that pydantic makes of a value without a declared type.

    A reader gets that JSON: a tuple has become a list, and a date has become text.

    Raises:
        InvalidPayloadError: it has no JSON, or holds a secret.
    """
    if _holds_secret(_ANY.dump_python(value, warnings="none")):
        raise InvalidPayloadError(f"{what} holds a secret: {_SECRETS_TURN_TO_STARS}")
    try:
        dumped = _ANY.dump_python(value, mode="json", by_alias=by_alias, warnings="none")
    except ValueError as error:
        raise InvalidPayloadError(f"{what} cannot be written as JSON: {error}") from None
    return cast("JsonValue", dumped)


# "constants": NaN stays NaN and is refused later, instead of silently becoming null.
_PLAIN = ConfigDict(ser_json_inf_nan="constants")
_ANY = TypeAdapter[Any](Any, config=_PLAIN)
_SECRET_TYPES = (Secret, SecretBytes, SecretStr)
_SECRETS_TURN_TO_STARS = (
    "its JSON would be stars; pass the name of the secret and read it on the worker, or give the "
    "field a serializer (@field_serializer(..., when_used='json')) if it may be stored as it is"
)


class _Schema(GenerateJsonSchema):
    """Without warnings: a default that has no JSON is left out."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def _adapter(kind: Any, what: str) -> TypeAdapter[Any]:
    try:
        adapter = _configured(kind)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise TypeError(
            f"the type of {what}, {kind!r}, has no JSON form ({str(error).splitlines()[0]}); "
            "use a pydantic model, a dataclass or JSON types"
        ) from None
    if not adapter.pydantic_complete:
        raise TypeError(
            f"the type of {what}, {kind!r}, names a type that is not defined yet; define it before "
            "the agent"
        )
    return adapter


def _configured(kind: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(kind, config=_PLAIN)
    except PydanticUserError:
        return TypeAdapter(kind)  # Models and dataclasses have a configuration of their own.


def _path_without_json(value: object) -> str:
    return ".".join(failing_path(value, _has_no_json)) or "value"


def _has_no_json(value: object) -> bool:
    try:
        encode_json(_ANY.dump_python(value, mode="json", warnings="none"), "it")
    except (ValueError, RecursionError):
        return True
    return False


def _nodes(schema: object) -> Iterator[Node]:
    """Every part of a core schema, its fields and the types in them."""
    stack: list[object] = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            node = cast("Node", part)
            yield node
            stack.extend(value for name, value in node.items() if name not in _NO_SCHEMA)
        elif isinstance(part, (list, tuple)):
            stack.extend(cast("list[object]", part))


_NO_SCHEMA = frozenset({"metadata", "default", "expected", "config", "custom_error_context"})


def _fields(nodes: list[Node]) -> Iterator[tuple[str, Node]]:
    """The fields of all models, dataclasses and typed dicts."""
    for node in nodes:
        fields = node.get("fields")
        if isinstance(fields, dict):
            yield from cast("dict[str, Node]", fields).items()
        elif isinstance(fields, list):
            # A dataclass lists the names of its fields, too, as texts.
            listed = cast("list[Node | str]", fields)
            yield from ((field["name"], field) for field in listed if not isinstance(field, str))


def _has_one_alias(name: str, field: Node) -> bool:
    # The schema of a round trip is that of reading: it must name what is written.
    written, read = field.get("serialization_alias"), field.get("validation_alias")
    return (written or name) == (read or name)


def _reads_its_alias(name: str, field: Node) -> bool:
    written, read = field.get("serialization_alias"), field.get("validation_alias")
    return written in {None, name} or read in (written, [written]) or [written] in (read or [])


def _needs_round_trip(nodes: list[Node]) -> bool:
    """Whether only the JSON of pydantic's round trip can be read back, not a model's plain JSON.

    Json[...] is written as its value and read as text, and readers refuse or retain a computed
    field as an extra one.
    """
    extras = {node.get("extra_behavior") for node in nodes}
    extras |= {
        cast("Node", node.get("config") or {}).get("extra_fields_behavior") for node in nodes
    }
    return any(node.get("type") == "json" for node in nodes) or (
        any(node.get("computed_fields") for node in nodes) and bool(extras & {"forbid", "allow"})
    )


def _refuse_losses(nodes: list[Node], what: str) -> None:
    for name, field in _fields(nodes):
        if field.get("serialization_exclude"):
            raise TypeError(
                f"{what}: field {name!r} is excluded from JSON (exclude=True), so that its value "
                "would be lost; keep it out of this type, or include it"
            )
    for node in nodes:
        keys = cast("Node", node.get("keys_schema") or {})
        if node.get("type") == "dict" and keys.get("type") in _NO_KEYS:
            raise TypeError(
                f"{what}: a dict has keys of type {keys['type']}, and JSON has texts only; use a "
                "list of pairs"
            )


def _masked(part: object, name: str) -> Iterator[str]:
    """The fields that pydantic masks in JSON. The user's own serializers are not masked."""
    if isinstance(part, (list, tuple)):
        for each in cast("list[object]", part):
            yield from _masked(each, name)
    elif isinstance(part, dict):
        node = cast("Node", part)
        serializer = cast("Node", node.get("serialization") or {}).get("function")
        if serializer is not None:
            if serializer.__module__ == "pydantic.types" and "secret" in serializer.__name__:
                yield name
            return
        for field_name, field in _fields([node]):
            yield from _masked(field, field_name)
        for key, value in node.items():
            if key != "fields" and key not in _NO_SCHEMA:
                yield from _masked(value, name)


def _holds_secret(value: object) -> bool:
    """Whether a value that ``dump_python`` returned has a secret in it."""
    if isinstance(value, dict):
        return any(map(_holds_secret, cast("dict[object, object]", value).values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_holds_secret, cast("list[object]", value)))
    return isinstance(value, _SECRET_TYPES)


def _schema_of(
    adapter: TypeAdapter[Any], mode: Literal["validation", "serialization"], *, by_alias: bool
) -> dict[str, JsonValue]:
    try:
        return adapter.json_schema(mode=mode, by_alias=by_alias, schema_generator=_Schema)
    except PydanticInvalidForJsonSchema:
        # A type of the user's own that has no schema: it may hold anything.
        return {}


def _shown(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    shown = "; ".join(
        f"{'.'.join(str(part) for part in each['loc']) or 'value'}: {each['msg']}"
        for each in found[:MAX_SHOWN_ERRORS]
    )
    more = len(found) - MAX_SHOWN_ERRORS
    return shown + (f"; and {more} more" if more > 0 else "")
