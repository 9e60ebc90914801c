"""Dead letters: runs that failed for good, with all that is needed to submit them again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.commands import Create
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.requests import TRACE_NAMES, QueuedRunOptions, submit_command

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


def requeue_command(letter: DeadLetter, run_id: str, limits: Limits) -> Create:
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
