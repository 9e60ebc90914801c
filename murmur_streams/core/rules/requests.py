"""Checks the arguments of a store's callers and builds commands from them.

Also from a dead letter, which holds everything that a new run needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict, Unpack, cast

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model import limits as bounds
from murmur_streams.core.model.commands import Create, Payload
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.run import Run


class RunOptions(TypedDict, total=False):
    """The beginning of a run, as keywords of a store's ``create``."""

    input: JsonValue
    metadata: Mapping[str, JsonValue] | None
    tenant: str | None


def create_command(
    run_id: str, target: str, limits: bounds.Limits, **options: Unpack[RunOptions]
) -> Create:
    """Check the arguments of ``create`` and build its command.

    Raises:
        InvalidInputError: an id, target, input, metadata or tenant breaks a rule.
    """
    return Create(*_beginning(run_id, target, limits, **options))


def _beginning(
    run_id: str,
    target: str,
    limits: bounds.Limits,
    *,
    input: JsonValue = None,  # noqa: A002  # the interface's name
    metadata: Mapping[str, JsonValue] | None = None,
    tenant: str | None = None,
) -> tuple[str, str, Payload | None, str | None, str | None]:
    """Check what all runs begin with: the first fields of Create."""
    bounds.check_run_id(run_id)
    return (
        bounds.check_target(target),
        bounds.new_epoch(),
        None if input is None else limits.input(encode_json(input, "the input")),
        None if metadata is None else limits.metadata(encode_json(dict(metadata), "the metadata")),
        bounds.check_tenant(tenant),
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
    limits: bounds.Limits,
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
    beginning = _beginning(run_id, target, limits, **options)
    headers = {name: _trace(trace.get(name)) for name in TRACE_NAMES} if trace else {}
    if at is not None and delay_seconds:
        raise InvalidInputError("pass at or a delay, not both")
    return Create(
        *beginning,
        queued=True,
        priority=check_priority(priority),
        delay_ms=milliseconds("the delay", delay_seconds),
        due_ms=None if at is None else due_milliseconds(at),
        # 0 would mean no deadline.
        deadline_ms=0
        if deadline_seconds is None
        else max(1, milliseconds("the deadline", deadline_seconds)),
        request_sha256=request_sha256,
        **headers,
    )


def milliseconds(what: str, seconds: float) -> int:
    """A duration in milliseconds; InvalidInputError when it is negative or over ten years."""
    return round(bounds.check_seconds(what, seconds, least=0) * 1000)


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


MOST_LETTERS = 500
"""The largest page."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run that failed for good."""

    run_id: str
    target: str
    reason: str
    """retries_exhausted, not_retryable, attempts_exhausted, deadline_exceeded, overdue, or another
    reason that ``finish(dead=...)`` was given."""
    attempts: int
    """How many executions began."""
    failures: int
    """How many of them failed."""
    error: str | None
    """Why the last one failed."""
    errors: tuple[str, ...]
    """The first failures, a line each: the attempt, a space, the error."""
    input_json: str | None
    metadata_json: str | None
    at_ms: int
    """When the run ended, Unix milliseconds."""
    letter_id: str
    """Its position in its target's stream."""
    priority: int = 0
    deadline_seconds: float | None = None
    """The run's deadline, counted from its due time; None without one."""
    trace: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """The W3C trace headers that the submitter passed."""
    tenant: str | None = None
    """The tenant that owned the run."""

    @property
    def input(self) -> JsonValue:
        """The run's input; None when there was none."""
        return None if self.input_json is None else decode_json(self.input_json)

    @property
    def metadata(self) -> JsonValue:
        """The submitter's metadata; None when there was none."""
        return None if self.metadata_json is None else decode_json(self.metadata_json)


LETTER_TEXTS = ("run_id", "error", "errors", "metadata_json", "tenant", *TRACE_NAMES)
"""The texts that a letter takes from the run under their own names."""


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Some dead letters."""

    letters: tuple[DeadLetter, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


def letter_from_fields(target: str, letter_id: str, fields: Mapping[str, str]) -> DeadLetter:
    """Read a letter from the text fields that a store has of it."""
    errors, span = fields.get("errors"), fields.get("deadline_span")
    return DeadLetter(
        run_id=fields["run_id"],
        target=target,
        reason=fields["reason"],
        attempts=int(fields["attempts"]),
        failures=int(fields["failures"]),
        error=fields.get("error"),
        errors=tuple(errors.split("\n")) if errors else (),
        input_json=fields.get("input"),
        metadata_json=fields.get("metadata_json"),
        at_ms=int(fields["at"]),
        letter_id=letter_id,
        priority=int(fields.get("priority", 0)),
        deadline_seconds=None if span is None else int(span) / 1000,
        trace={name: fields[name] for name in TRACE_NAMES if name in fields},
        tenant=fields.get("tenant"),
    )


def resubmission(old: Run | DeadLetter, given: JsonValue, mark: str) -> QueuedRunOptions:
    """The options of a run that repeats another one with the same input.

    It has the old run's tenant, priority, trace and metadata, and the old id under the name
    ``mark`` in its metadata. Its deadline has the same length, counted from now.
    """
    metadata = old.metadata if isinstance(old.metadata, dict) else {}
    return QueuedRunOptions(
        input=given,
        metadata={**metadata, mark: old.run_id},
        tenant=old.tenant,
        priority=old.priority,
        deadline_seconds=old.deadline_seconds,
        trace=old.trace,
    )


def requeue_command(letter: DeadLetter, run_id: str, limits: bounds.Limits) -> Create:
    """Begin a run that replaces a dead letter, with the same input."""
    options = resubmission(letter, letter.input, "requeued_from")
    return submit_command(run_id, letter.target, limits, **options)


def check_purge(
    run_id: str | None, target: str | None, older_than_seconds: float | None, every: object
) -> None:
    """Refuse a purge that does not say clearly which letters to remove.

    Raises:
        InvalidInputError: neither ``all`` nor a filter was given, or both were; or the age is
            negative or not a number.
    """
    which = (run_id, target, older_than_seconds)
    # A filter that is None by mistake must not remove all letters.
    if not isinstance(every, bool) or every != all(each is None for each in which):
        raise InvalidInputError(
            "say which letters to purge: run_id=, target=, older_than_seconds=, or all=True alone"
        )
    if older_than_seconds is not None and not 0 <= older_than_seconds < math.inf:
        raise InvalidInputError(
            f"older_than_seconds is {older_than_seconds}, but must be a number from 0 on"
        )
