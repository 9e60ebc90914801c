"""The options of a submission, and their checks: for the fleet, the server and the client alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict, cast

from pydantic import JsonValue

from murmur_streams.core.json_values import copy_json
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.identifiers import check_run_id
from murmur_streams.core.model.limits import check_seconds
from murmur_streams.core.rules.requests import check_priority, due_milliseconds

LONGEST_KEY = 1_024
"""Characters of an idempotency key."""
LONGEST_HEADER_KEY = 255
"""Characters of an idempotency key that travels by HTTP, in the header Idempotency-Key."""


class CommonSubmitOptions(TypedDict, total=False):
    """The options that every way to submit has; ``Fleet.submit`` explains them."""

    run_id: str | None
    metadata: Mapping[str, JsonValue] | None
    idempotency_key: str | None
    delay: float | timedelta | None
    at: datetime | None
    priority: int
    deadline: float | timedelta | None
    trace: Mapping[str, str] | None


class SubmitOptions(CommonSubmitOptions, total=False):
    """The keywords of ``Fleet.submit``."""

    tenant: str | None


class ClientSubmitOptions(CommonSubmitOptions, total=False):
    """The keywords of a client's ``submit``."""

    wait: float | None


class CheckedOptions(TypedDict, total=False):
    """The options that say what a request asks for, as ``WorkStore.submit`` takes them."""

    metadata: Mapping[str, JsonValue] | None
    priority: int
    delay_seconds: float
    at: datetime | None
    deadline_seconds: float | None


def check_options(options: CommonSubmitOptions, kind: type = CommonSubmitOptions) -> CheckedOptions:
    """Check all options whose rules need neither a store nor a server.

    The metadata is copied: the caller may change its values while the submission is awaited.

    Args:
        options: the caller's.
        kind: the TypedDict that has them.

    Raises:
        TypeError: an option does not exist.
        InvalidInputError: an option breaks a rule, or two exclude each other; the text names it.
    """
    if unknown := options.keys() - kind.__annotations__.keys():
        raise TypeError(f"a submission has no option {', '.join(sorted(unknown))}")
    run_id, key = options.get("run_id"), options.get("idempotency_key")
    metadata, at = options.get("metadata"), options.get("at")
    delay, deadline = options.get("delay"), options.get("deadline")
    if run_id is not None and key is not None:
        raise InvalidInputError("pass run_id or idempotency_key, not both: the key makes the id")
    if run_id is not None:
        check_run_id(run_id)
    if delay is not None and at is not None:
        raise InvalidInputError("pass delay or at, not both")
    if at is not None:
        due_milliseconds(at)
    if metadata is not None and not isinstance(cast("object", metadata), Mapping):
        raise InvalidInputError(f"metadata is {metadata!r}, but must be a mapping of names to JSON")
    copied = None if metadata is None else copy_json(dict(metadata), "the metadata")
    return CheckedOptions(
        metadata=cast("dict[str, JsonValue] | None", copied),
        priority=check_priority(options.get("priority", 0)),
        delay_seconds=0.0 if delay is None else _seconds("delay", delay, least=0),
        at=at,
        deadline_seconds=None if deadline is None else _seconds("deadline", deadline, least=0.001),
    )


def _seconds(name: str, given: float | timedelta, *, least: float) -> float:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    return check_seconds(name, seconds, least=least)
