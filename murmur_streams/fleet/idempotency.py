"""Idempotency keys: the run id that is derived from a key, and the digest of a request."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Set
from typing import Any, Unpack, cast

from pydantic import BaseModel, JsonValue
from pydantic_core import PydanticSerializationError, to_jsonable_python

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.identifiers import check_tenant
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.requests import due_milliseconds
from murmur_streams.wire.requests import LONGEST_KEY, CheckedOptions

KEYED = "idem-"
"""Run ids that are derived from a key begin with this."""


def idempotent_run_id(target: str, key: str, tenant: str | None = None) -> str:
    """The run id of an idempotency key, which belongs to a target and perhaps to a tenant.

    Raises:
        InvalidInputError: the key is not text, empty, or longer than 1,024 characters; the tenant
            breaks the rules of tenants.
    """
    if not isinstance(cast("object", key), str):
        raise InvalidInputError(f"idempotency_key is {key!r}, but must be text")
    if not 1 <= len(key) <= LONGEST_KEY:
        raise InvalidInputError(
            f"idempotency_key has {len(key):,} characters, but must have 1 to {LONGEST_KEY:,}"
        )
    # A NUL separates: tenants and targets cannot contain it.
    parts = f"{check_tenant(tenant) or ''}\0{target}\0{key}".encode("utf-8", "surrogatepass")
    return f"{KEYED}{hashlib.sha256(parts).hexdigest()[:32]}"


def request_digest(target: str, sent: JsonValue, **options: Unpack[CheckedOptions]) -> str:
    """The SHA-256 of a request with a key; a later request with the same key is compared by it.

    It covers the request and not the run: values that the agent's type or policy fill in (an id,
    the time, a deadline) differ between a request and its repetition. The order of members does not
    count. Its form can never change, because pods and workers of different releases compare it.

    Args:
        target: the agent's name.
        sent: the input, as ``sent_form`` makes it or as JSON from outside.
        options: as the caller sent them.
    """
    at, deadline = options.get("at"), options.get("deadline_seconds")
    request: dict[str, object] = {
        "target": target,
        "input": sent,
        "metadata": options.get("metadata") or None,
        "priority": options.get("priority") or None,
        "delay": float(options.get("delay_seconds", 0)) or None,
        "at": None if at is None else due_milliseconds(at),
        "deadline": None if deadline is None else float(deadline),
    }
    present = {name: value for name, value in request.items() if value is not None}
    encode_json(present, "the submission")
    return hashlib.sha256(_text(present).encode()).hexdigest()


def is_same(
    run: Run, digest: str, *, input_json: str | None, target: str, tenant: str | None
) -> bool:
    """Whether the run of a key was submitted by the same request."""
    if run.tenant != tenant:
        return False
    if run.request_sha256 is not None:
        return run.request_sha256 == digest
    # An old release submitted it, without a digest: compare target and stored input.
    stored = None if input_json is None else hashlib.sha256(input_json.encode()).hexdigest()
    return (run.target, run.input_sha256) == (target, stored)


def sent_form(value: object, encoded: JsonValue) -> JsonValue:
    """The input as the caller passed it, in the same form for equal inputs.

    Only the fields that the caller has set in a model count, and sets are sorted: an id that a
    ``default_factory`` draws and the order of a set in this process are not the caller's.

    Args:
        value: the caller's input.
        encoded: its JSON as it is stored, for values that have no other form.
    """
    try:
        return _form(value)
    except (PydanticSerializationError, ValueError, RecursionError):
        return encoded


def _form(value: object) -> JsonValue:
    if isinstance(value, BaseModel):
        return _form(_set_fields(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _form(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, object]", value).items()
        return {key if isinstance(key, str) else _text(_form(key)): _form(v) for key, v in items}
    if isinstance(value, Set):
        return cast("JsonValue", sorted(map(_form, cast("Set[object]", value)), key=_text))
    if isinstance(value, (list, tuple)):
        return [_form(item) for item in cast("list[object]", value)]
    return cast("JsonValue", to_jsonable_python(value))


def _set_fields(model: BaseModel) -> object:
    """The fields that were set, by their names in JSON."""
    fields = type(model).model_fields
    if "root" in fields:
        return getattr(model, "root", None)
    values = {name: getattr(model, name) for name in model.model_fields_set if name in fields}
    named = {fields[name].alias or name: value for name, value in values.items()}
    return {**named, **(model.__pydantic_extra__ or {})}


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
