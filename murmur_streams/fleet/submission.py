"""What a run is submitted with beside its input, checked; and submission that may be repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict, cast

from pydantic import JsonValue

from murmur_streams.core.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    RunExistsError,
    RunNotFoundError,
    RunNotTerminalError,
)
from murmur_streams.core.identifiers import check_run_id, check_tenant, new_run_id
from murmur_streams.core.json_values import encode_json
from murmur_streams.core.run import Run
from murmur_streams.core.states import RunState
from murmur_streams.fleet.policy import checked_seconds
from murmur_streams.fleet.trace import trace_to_carry
from murmur_streams.stores.work_store import WorkStore

MOST_KEY_CHARACTERS = 1_024
KEYED = "idem-"
"""What the ids begin with that keys make."""
_TRIES = 3


class SubmitOptions(TypedDict, total=False):
    """The keywords of ``Fleet.submit``; see there."""

    run_id: str | None
    metadata: Mapping[str, JsonValue] | None
    tenant: str | None
    idempotency_key: str | None
    delay: float | timedelta | None
    at: datetime | None
    priority: int
    deadline: float | timedelta | None
    trace: Mapping[str, str] | None


async def submit_run(  # noqa: PLR0913  # one for each option of a submission
    store: WorkStore,
    target: str,
    given: JsonValue,
    *,
    run_id: str | None = None,
    metadata: Mapping[str, JsonValue] | None = None,
    tenant: str | None = None,
    idempotency_key: str | None = None,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    priority: int = 0,
    deadline: float | timedelta | None = None,
    trace: Mapping[str, str] | None = None,
) -> str:
    """Submit a run; its id. The options are those of ``Fleet.submit``, and so are the errors."""
    if delay is not None and at is not None:
        raise InvalidInputError("pass delay or at, not both")
    if metadata is not None and not isinstance(cast("object", metadata), Mapping):
        raise InvalidInputError(f"metadata is {metadata!r}, but must be a mapping of names to JSON")
    wanted = _wanted_id(target, run_id, idempotency_key, tenant)
    delay_seconds = 0.0 if delay is None else _seconds("delay", delay, least=0)
    deadline_seconds = None if deadline is None else _seconds("deadline", deadline, least=0.001)
    carried = trace_to_carry(trace)
    for _ in range(_TRIES):
        try:
            await store.submit(
                wanted,
                target,
                input=given,
                metadata=metadata,
                tenant=tenant,
                priority=priority,
                delay_seconds=delay_seconds,
                at=at,
                deadline_seconds=deadline_seconds,
                trace=carried,
            )
            return wanted
        except RunExistsError:
            if idempotency_key is None:
                raise
        try:
            _check_same(await store.snapshot(wanted), target, given, tenant, idempotency_key)
            return wanted
        except RunNotFoundError:
            # It expired in between: the key is free again.
            continue
    raise RunExistsError(wanted)


def _wanted_id(target: str, run_id: str | None, key: str | None, tenant: str | None) -> str:
    if key is None:
        return new_run_id() if run_id is None else check_run_id(run_id)
    if run_id is not None:
        raise InvalidInputError("pass run_id or idempotency_key, not both: the key makes the id")
    return idempotent_run_id(target, key, tenant)


def idempotent_run_id(target: str, key: str, tenant: str | None = None) -> str:
    """The run id that belongs to an idempotency key of a target, and of a tenant if there is one.

    Raises:
        InvalidInputError: the key is no text, empty, or longer than 1,024 characters; the tenant
            is none.
    """
    if not isinstance(cast("object", key), str):
        raise InvalidInputError(f"idempotency_key is {key!r}, but must be text")
    if not 1 <= len(key) <= MOST_KEY_CHARACTERS:
        raise InvalidInputError(
            f"idempotency_key has {len(key):,} characters, but must have 1 to "
            f"{MOST_KEY_CHARACTERS:,}"
        )
    # Neither a tenant's name nor a target has a separator in it.
    told = f"{check_tenant(tenant) or ''}\0{target}\0{key}".encode("utf-8", "surrogatepass")
    return f"{KEYED}{hashlib.sha256(told).hexdigest()[:32]}"


async def retry_run(store: WorkStore, run_id: str, new_id: str | None = None) -> tuple[str, str]:
    """Submit a failed or cancelled run again as a new one; the new id, and the target.

    Args:
        store: whose run.
        run_id: the run.
        new_id: of the new run; None draws one.

    Raises:
        RunNotFoundError: there is no such run.
        RunExistsError: the new id is taken.
        RunNotTerminalError: it has not ended.
        InvalidInputError: it completed.
    """
    run = await store.snapshot(run_id)
    if not run.state.is_terminal:
        raise RunNotTerminalError(run_id, str(run.state), "cancel it")
    if run.state is RunState.COMPLETED:
        raise InvalidInputError(f"run {run_id!r} completed: submit new work as a new run")
    given = await store.get_input(run_id)
    kept = run.metadata if isinstance(run.metadata, dict) else {}
    span_ms = run.deadline_span_ms
    again = new_run_id() if new_id is None else check_run_id(new_id)
    await store.submit(
        again,
        run.target,
        input=given,
        metadata={**kept, "retry_of": run_id},
        tenant=run.tenant,
        priority=run.priority,
        deadline_seconds=None if span_ms is None else span_ms / 1000,
        trace=run.trace or trace_to_carry(None),
    )
    return again, run.target


def _check_same(
    run: Run, target: str, given: JsonValue, tenant: str | None, key: str | None
) -> None:
    text = None if given is None else encode_json(given, "the input")
    sha256 = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    if (run.input_sha256, run.target, run.tenant) != (sha256, target, tenant):
        raise IdempotencyConflictError(run.run_id, target, key or "")


def _seconds(name: str, given: float | timedelta, *, least: float) -> float:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    return checked_seconds(name, seconds, least=least)
