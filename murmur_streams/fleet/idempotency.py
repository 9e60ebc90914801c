"""Idempotency keys: the run id that a key makes, and the digest of what its caller sent."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Set
from datetime import datetime
from typing import Any, cast

from pydantic import BaseModel, JsonValue
from pydantic_core import PydanticSerializationError, to_jsonable_python

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.identifiers import check_tenant
from murmur_streams.core.model.run import Run
from murmur_streams.wire.submit_options import LONGEST_KEY

KEYED = "idem-"
"""The ids that keys make begin with this."""


def idempotent_run_id(target: str, key: str, tenant: str | None = None) -> str:
    """The run id that belongs to an idempotency key of a target, and of a tenant if there is one.

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


def request_digest(  # one for each part of a submission
    target: str,
    sent: JsonValue,
    *,
    metadata: Mapping[str, JsonValue] | None = None,
    priority: int = 0,
    delay_seconds: float = 0.0,
    at: datetime | None = None,
    deadline_seconds: float | None = None,
) -> str:
    """The SHA-256 of what a caller sent with a key: what a second request is compared by.

    It is of the request and not of the run: what the agent's type or its policy fill in (an id,
    the time, a deadline) differs from one request to its repeat. The order of members does not
    count. Its form is kept for ever, because pods and workers of two releases compare it.

    Args:
        target: the agent's name.
        sent: the input, as ``sent_form`` makes it or as JSON from outside.
        metadata: as sent.
        priority: as sent.
        delay_seconds: as sent; 0 for none.
        at: as sent.
        deadline_seconds: as sent; None when it was left out.
    """
    request: dict[str, object] = {
        "target": target,
        "input": sent,
        "metadata": dict(metadata) if metadata else None,
        "priority": priority or None,
        "delay": float(delay_seconds) or None,
        "at": _moment_ms(at),
        "deadline": None if deadline_seconds is None else float(deadline_seconds),
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
    # A release before digests submitted it: the input as it is stored has to do.
    stored = None if input_json is None else hashlib.sha256(input_json.encode()).hexdigest()
    return (run.target, run.input_sha256) == (target, stored)


def sent_form(value: object, encoded: JsonValue) -> JsonValue:
    """An input as its caller gave it, in one form for equal inputs.

    Of a model only the fields count that the caller has set, and a set has an order: an id that
    a ``default_factory`` draws, and the order of a set in this process, are not the caller's.

    Args:
        value: what the caller gave.
        encoded: its JSON as it is stored, for values that have a form only there.
    """
    try:
        return _form(value)
    except (PydanticSerializationError, ValueError, RecursionError):
        return encoded


def _moment_ms(at: object) -> int | None:
    if isinstance(at, datetime) and at.utcoffset() is not None:
        return math.ceil(at.timestamp() * 1000)
    return None  # The store refuses everything else.


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
    """The fields that were set, by the names that JSON has for them."""
    fields = type(model).model_fields
    if "root" in fields:
        return getattr(model, "root", None)
    values = {name: getattr(model, name) for name in model.model_fields_set if name in fields}
    named = {fields[name].alias or name: value for name, value in values.items()}
    return {**named, **(model.__pydantic_extra__ or {})}


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
