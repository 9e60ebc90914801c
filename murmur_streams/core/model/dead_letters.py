"""What failed in the fleet's hands, with what is needed to try it again, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.commands import Create
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.limits import Limits
from murmur_streams.core.rules.requests import TRACE_NAMES, Order, create_command, submit_command

MOST_LETTERS = 500
"""On a page."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run that failed for good."""

    run_id: str
    target: str
    reason: str
    """retries_exhausted, not_retryable, attempts_exhausted, deadline_exceeded, overdue; or what
    else ``finish(dead=...)`` was told."""
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
    """Its place in its target's stream."""
    priority: int = 0
    deadline_seconds: float | None = None
    """How long after it was due it would have failed; None: for ever."""
    trace: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """The W3C headers that the submitter passed."""
    tenant: str | None = None
    """Whose run it was."""

    @property
    def input(self) -> JsonValue:
        """The run's input; None when there was none."""
        return None if self.input_json is None else decode_json(self.input_json)

    @property
    def metadata(self) -> JsonValue:
        """What the submitter attached; None when nothing was."""
        return None if self.metadata_json is None else decode_json(self.metadata_json)


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Some dead letters."""

    letters: tuple[DeadLetter, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


def letter_from_fields(target: str, letter_id: str, fields: Mapping[str, str]) -> DeadLetter:
    """Read a letter from the text fields that a store keeps of it."""
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


def requeue_command(letter: DeadLetter, run_id: str, limits: Limits) -> Create:
    """Begin a run in the place of a dead letter.

    It has the old one's input, tenant, priority and trace, its deadline's span from now on, and in
    its metadata the old one's id as ``requeued_from``.
    """
    kept = cast("dict[str, JsonValue]", letter.metadata or {})
    metadata = {**kept, "requeued_from": letter.run_id}
    created = create_command(
        run_id, letter.target, letter.input, metadata, limits, tenant=letter.tenant
    )
    order = Order(
        priority=letter.priority, deadline_seconds=letter.deadline_seconds, trace=letter.trace
    )
    return submit_command(created, order)


def check_purge(
    run_id: str | None, target: str | None, older_than_seconds: float | None, every: object
) -> None:
    """Refuse to remove letters that nobody has named.

    Raises:
        InvalidInputError: neither ``all`` nor another word which, or both; or the age is negative
            or no number.
    """
    which = (run_id, target, older_than_seconds)
    # A name that is None by mistake must not cost all letters.
    if not isinstance(every, bool) or every != all(each is None for each in which):
        raise InvalidInputError(
            "say which letters to purge: run_id=, target=, older_than_seconds=, or all=True alone"
        )
    if older_than_seconds is not None and not 0 <= older_than_seconds < math.inf:
        raise InvalidInputError(
            f"older_than_seconds is {older_than_seconds}, but must be a number from 0 on"
        )
