"""The run as a value: the fold of its journal, which stores also have as fields; pages of runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self, TypedDict, TypeVar, cast

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.entries import Cursor
from murmur_streams.core.model.errors import (
    InvalidCursorError,
    InvalidInputError,
    MurmurError,
    RemoteAgentError,
    RunCancelledError,
    RunDamagedError,
)
from murmur_streams.core.model.limits import check_state, check_target, check_tenant
from murmur_streams.core.model.states import PROGRESS_FIELDS, RunProgress, RunState, RunStatus

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """All that is known of a run, as one immutable value. Times are Unix milliseconds.

    It has no slots: ``changed`` copies its ``__dict__`` in one step.
    """

    run_id: str
    target: str
    epoch: str
    state: RunState = RunState.PENDING
    version: int = 0
    """seq of the last journal entry."""
    last_ms: int = 0
    """ms of the last journal entry."""
    created_ms: int = 0
    started_ms: int | None = None
    """When it first began to run."""
    ended_ms: int | None = None
    """When it became terminal."""
    progress: RunProgress | None = None
    progress_ms: int | None = None
    """When progress was last journalled."""
    progress_dirty: bool = False
    """True while the progress here is newer than the journal's."""
    attempt: int = 0
    """How many executions have begun."""
    claim: str | None = None
    """The fencing token of the worker that holds it."""
    worker: str | None = None
    """The worker that executes it, or executed it last."""
    host: str | None = None
    """The host of that worker."""
    queued: bool = False
    """Whether it was submitted to be executed by workers."""
    priority: int = 0
    """A step counts as much as a minute of waiting."""
    due_ms: int | None = None
    """The time from which it may be started; None: at once."""
    deadline_ms: int | None = None
    """When it fails if it has not ended."""
    deadline_span_ms: int | None = None
    """The time from when it was first due to its deadline."""
    failures: int = 0
    """How many executions failed."""
    excused: int = 0
    """How many executions do not count against the most attempts."""
    errors: str | None = None
    """The first failures' texts, a line each: the attempt, a space, the error."""
    cancel_requested: int | None = None
    """When a cancel was first requested."""
    cancel_reason: str | None = None
    cancel_delivered: int | None = None
    """When the request reached the execution."""
    silent: int | None = None
    """seq of the last run.silent entry."""
    checkpoint_size: int | None = None
    checkpoint_sha256: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    request_sha256: str | None = None
    """The digest of the request that came with an idempotency key; None without a key."""
    tenant: str | None = None
    """The tenant that owns the run, where several share a store; None without tenants."""
    error: str | None = None
    closing: int | None = None
    """seq of the first closing event."""
    cancel_event: int | None = None
    """seq of the run_cancelled event."""
    seal: int | None = None
    """seq of the entry at which the stream ends."""
    input_size: int | None = None
    input_sha256: str | None = None
    snapshot: int | None = None
    """seq of the last run.snapshot entry."""
    result_size: int | None = None
    result_sha256: str | None = None
    metadata_json: str | None = None

    @property
    def trace(self) -> Mapping[str, str]:
        """The W3C trace context that the submitter passed, by header name; empty without one."""
        texts = {"traceparent": self.traceparent, "tracestate": self.tracestate}
        return {name: text for name, text in texts.items() if text is not None}

    @property
    def deadline_seconds(self) -> float | None:
        """The time from when it was first due to its deadline; None without one."""
        return None if self.deadline_span_ms is None else self.deadline_span_ms / 1000

    @property
    def status(self) -> RunStatus:
        """State and progress."""
        return RunStatus(run_id=self.run_id, state=self.state, progress=self.progress)

    @property
    def cursor(self) -> str:
        """The position after the last entry that this value includes."""
        return str(Cursor(self.epoch, self.last_ms, self.version))

    @property
    def error_without_result(self) -> MurmurError | None:
        """The error of a run that failed or was cancelled without a result; None for others."""
        if self.state is RunState.CANCELLED:
            return RunCancelledError(self.run_id, self.cancel_reason or self.error)
        if self.state is RunState.FAILED:
            return RemoteAgentError("RunFailed", self.error or "the run failed and left no error")
        return None

    @property
    def metadata(self) -> JsonValue:
        """The submitter's metadata; None when there was none."""
        text = self.metadata_json
        return None if text is None else read_payload(self.run_id, "metadata", decode_json, text)

    @property
    def created_at(self) -> datetime:
        """When it was created, in UTC."""
        return datetime.fromtimestamp(self.created_ms / 1000, UTC)

    @property
    def started_at(self) -> datetime | None:
        """When it first began to run, in UTC."""
        return moment_of(self.started_ms)

    @property
    def ended_at(self) -> datetime | None:
        """When it became terminal, in UTC."""
        return moment_of(self.ended_ms)


def moment_of(ms: int | None) -> datetime | None:
    """A time in milliseconds, in UTC."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def changed(run: Run, **values: object) -> Run:
    """The run with other values, in a tenth of the time of ``dataclasses.replace``.

    It is called for every entry of every fold, where ``replace`` took most of the time.
    """
    copy = object.__new__(Run)
    copy.__dict__.update(run.__dict__, **values)
    return copy


def _fields_of_type(kind: str) -> frozenset[str]:
    """The fields whose declared type is this one, or this one or None."""
    return frozenset(each.name for each in fields(Run) if each.type in {kind, f"{kind} | None"})


_INT_FIELDS = _fields_of_type("int")
_FLAGS = _fields_of_type("bool")
_TEXT_FIELDS = _fields_of_type("str") - {"run_id"}
_SORTED_FIELDS, _SORTED_FLAGS = sorted(_INT_FIELDS | _TEXT_FIELDS), sorted(_FLAGS)
_LEFT_OUT_WHEN_ZERO = frozenset({"priority", "failures", "excused"})
FOLDED_FIELDS = (
    _INT_FIELDS
    | _TEXT_FIELDS
    | _FLAGS
    | {"state"}
    | {f"progress_{name}" for name in PROGRESS_FIELDS}
)
"""All fields of a stored run that follow from the fold of its journal."""


def run_from_fields(run_id: str, fields: Mapping[str, str]) -> Run:
    """Read a run from its stored text fields; fields of newer versions are ignored.

    Raises:
        RunDamagedError: a field is missing or not of its type; the text names it.
    """
    values: dict[str, Any] = {}
    for name in ("target", "epoch", "state", "version", "last_ms", "created_ms"):
        if not fields.get(name):
            raise RunDamagedError(run_id, f"{name} is missing")
    for name, text in fields.items():
        if name in FOLDED_FIELDS and text != "":
            values[name] = _value(run_id, name, text)
    counters = {name: values.pop(f"progress_{name}", None) for name in PROGRESS_FIELDS}
    found = {name: count for name, count in counters.items() if count is not None}
    return Run(run_id=run_id, progress=RunProgress(**found) if found else None, **values)


class PayloadKind(StrEnum):
    """The JSON texts that are stored beside a run, so that a poll does not read them."""

    INPUT = "input"
    RESULT = "result"
    CHECKPOINT = "checkpoint"


def read_payload(run_id: str, what: str, decode: Callable[[str], T], text: str) -> T:
    """Decode a JSON text that is stored with a run.

    Raises:
        RunDamagedError: the text is not as this package writes it.
    """
    try:
        return decode(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        damage = f"its {what} is not JSON that this package wrote"
        raise RunDamagedError(run_id, damage, can_rebuild=False) from error


def _value(run_id: str, name: str, text: str) -> object:
    if name in _TEXT_FIELDS:
        return text
    try:
        if name == "state":
            return RunState(text)
        return text == "1" if name in _FLAGS else int(text)
    except ValueError:
        raise RunDamagedError(run_id, f"{name} is {ascii(text)[:40]}") from None


def run_to_fields(run: Run) -> dict[str, str]:
    """Write a run as the text fields of its hash; unset fields are left out."""
    fields, values = {"state": str(run.state)}, run.__dict__
    for name in _SORTED_FIELDS:
        value = values[name]
        if value is not None and not (value == 0 and name in _LEFT_OUT_WHEN_ZERO):
            fields[name] = str(value)
    if run.progress is not None:
        for name in PROGRESS_FIELDS:
            fields[f"progress_{name}"] = str(getattr(run.progress, name))
    for name in _SORTED_FLAGS:
        if values[name]:
            fields[name] = "1"
    return fields


class ClientListOptions(TypedDict, total=False):
    """The keywords of a client's ``list_runs``; a token has the tenant."""

    state: RunState | None
    target: str | None
    limit: int
    cursor: str | None


class ListOptions(ClientListOptions, total=False):
    """The keywords of a store's ``list_runs``."""

    tenant: str | None


MOST_RUNS = 500

_CURSOR = re.compile(r"[0-9]{13}:[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first."""

    runs: tuple[Run, ...]
    cursor: str | None
    """Pass it to get the next page; None when this was the last."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """The runs that a listing has; None for any state, target or tenant."""

    state: RunState | None = None
    target: str | None = None
    tenant: str | None = None

    @classmethod
    def of(cls, state: RunState | None, target: str | None, tenant: str | None) -> Self:
        """Check a caller's filter.

        Raises:
            InvalidInputError: a state, target or tenant is not valid.
        """
        return cls(
            None if state is None else check_state(state),
            None if target is None else check_target(target),
            check_tenant(tenant),
        )

    def wants(self, run: Run) -> bool:
        """Whether the run passes the filter."""
        return (
            self.state in {None, run.state}
            and self.target in {None, run.target}
            and self.tenant in {None, run.tenant}
        )


def listing_key(created_ms: int, run_id: str) -> str:
    """The position of a run in every listing: by creation, then by id."""
    return f"{created_ms:013d}:{run_id}"


def check_limit(limit: object, most: int) -> None:
    """Refuse a page's limit that is not from 1 to ``most``, with InvalidInputError."""
    if type(limit) is not int or not 1 <= limit <= most:
        raise InvalidInputError(
            f"limit is {ascii(limit)[:40]}, but must be an integer from 1 to {most}"
        )


def check_listing(
    *,
    state: RunState | None = None,
    target: str | None = None,
    tenant: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[RunFilter, int, str | None]:
    """Check the keywords of ``list_runs``: the filter, the page's limit, and its cursor.

    Raises:
        InvalidInputError: a state, target or tenant is not valid, or ``limit`` not from 1 to 500.
        InvalidCursorError: ``cursor`` is not from a listing.
    """
    check_limit(limit, MOST_RUNS)
    if cursor is not None and not (
        isinstance(cast("object", cursor), str) and _CURSOR.fullmatch(cursor)
    ):
        raise InvalidCursorError(
            f"{ascii(cursor)[:60]} is not a cursor of a listing; pass RunPage.cursor, or None"
        )
    return RunFilter.of(state, target, tenant), limit, cursor
