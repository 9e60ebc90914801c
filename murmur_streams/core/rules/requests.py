"""Checks the arguments of a store's callers and builds commands from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypedDict, Unpack, cast

from pydantic import JsonValue

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model import identifiers
from murmur_streams.core.model.commands import Create
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.limits import Limits, check_seconds


class RunOptions(TypedDict, total=False):
    """The beginning of a run, as keywords of a store's ``create``."""

    input: JsonValue
    metadata: Mapping[str, JsonValue] | None
    tenant: str | None


def create_command(
    run_id: str,
    target: str,
    limits: Limits,
    *,
    input: JsonValue = None,  # noqa: A002  # the interface's name
    metadata: Mapping[str, JsonValue] | None = None,
    tenant: str | None = None,
) -> Create:
    """Check the arguments of ``create`` and build its command.

    Raises:
        InvalidInputError: an id, target, input, metadata or tenant breaks a rule.
    """
    identifiers.check_run_id(run_id)
    return Create(
        identifiers.check_target(target),
        identifiers.new_epoch(),
        None if input is None else limits.input(encode_json(input, "the input")),
        None if metadata is None else limits.metadata(encode_json(dict(metadata), "the metadata")),
        identifiers.check_tenant(tenant),
    )


MOST_PRIORITY = 100
LATEST_DUE_MS = 10**13 - 1
"""The year 2286. The queue's scores put due and delayed runs on two sides of this number."""
TRACE_NAMES = ("traceparent", "tracestate")
LONGEST_TRACE = 512


class QueuedRunOptions(RunOptions, total=False):
    """The beginning of a queued run, as keywords of a store's ``submit``."""

    priority: int
    delay_seconds: float
    at: datetime | None
    deadline_seconds: float | None
    trace: Mapping[str, str] | None
    request_sha256: str | None


def submit_command(
    run_id: str,
    target: str,
    limits: Limits,
    *,
    priority: int = 0,
    delay_seconds: float = 0.0,
    at: datetime | None = None,
    deadline_seconds: float | None = None,
    trace: Mapping[str, str] | None = None,
    request_sha256: str | None = None,
    **options: Unpack[RunOptions],
) -> Create:
    """Check the arguments of ``submit`` and build its command.

    Raises:
        InvalidInputError: an argument breaks a rule.
    """
    created, deadline = create_command(run_id, target, limits, **options), deadline_seconds
    headers = {name: _trace((trace or {}).get(name)) for name in TRACE_NAMES}
    if at is not None and delay_seconds:
        raise InvalidInputError("pass at or a delay, not both")
    return replace(
        created,
        queued=True,
        priority=check_priority(priority),
        delay_ms=milliseconds("the delay", delay_seconds),
        due_ms=None if at is None else due_milliseconds(at),
        # 0 would mean no deadline.
        deadline_ms=0 if deadline is None else max(1, milliseconds("the deadline", deadline)),
        request_sha256=request_sha256,
        **headers,
    )


def milliseconds(what: str, seconds: float) -> int:
    """A duration in milliseconds; InvalidInputError when it is negative or over ten years."""
    return round(check_seconds(what, seconds, least=0) * 1000)


def check_priority(priority: object) -> int:
    """Refuse a priority that is not an integer from -100 to 100."""
    if type(priority) is int and abs(priority) <= MOST_PRIORITY:
        return priority
    raise InvalidInputError(
        f"priority is {ascii(priority)[:40]}, but must be an integer from -{MOST_PRIORITY} "
        f"to {MOST_PRIORITY}"
    )


def due_milliseconds(at: datetime) -> int:
    """A due time in Unix milliseconds; InvalidInputError without a time zone or out of range."""
    if not isinstance(cast("object", at), datetime):
        raise InvalidInputError(
            f"at is {ascii(at)[:40]}, but must be a datetime; a number of seconds is a delay"
        )
    if at.utcoffset() is None:
        raise InvalidInputError("at has no time zone; use datetime.now(tz=UTC) + timedelta(...)")
    ms = math.ceil(at.timestamp() * 1000)
    if not 0 <= ms <= LATEST_DUE_MS:
        raise InvalidInputError(f"at is {at}, but must be from 1970 to 2286")
    return ms


def _trace(text: str | None) -> str | None:
    # Callers pass these headers on from their own clients: a bad one must not fail the submission.
    if not text or len(text) > LONGEST_TRACE or not (text.isascii() and text.isprintable()):
        return None
    return text
