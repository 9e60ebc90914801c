"""Checks the options of a submission, submits, and finds the run of a repeated request."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict, cast

from pydantic import JsonValue

from murmur_streams.core.json_values import copy_json, encode_json
from murmur_streams.core.model.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    RunExistsError,
    RunNotFoundError,
    RunNotTerminalError,
)
from murmur_streams.core.model.identifiers import check_run_id, new_run_id
from murmur_streams.core.model.states import RunState
from murmur_streams.fleet.idempotency import idempotent_run_id, is_same, request_digest
from murmur_streams.fleet.policy import checked_seconds
from murmur_streams.fleet.trace import trace_to_carry
from murmur_streams.stores.work_store import WorkStore

_TRIES = 3


async def submit_run(  # noqa: PLR0913  # one for each option of a submission
    open_store: Callable[[], Awaitable[WorkStore]],
    target: str,
    given: JsonValue,
    *,
    sent: JsonValue = None,
    request_sha256: str | None = None,
    policy_deadline: float | None = None,
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
    """Submit a run and return its id. Options and errors are those of ``Fleet.submit``.

    ``given`` is the input as it is stored, ``sent`` as ``sent_form`` makes it for the digest of a
    key. ``request_sha256`` is a digest of the caller's own, which also passes its own run id.
    ``policy_deadline``, in seconds, is the agent's deadline, for a submission without one.

    The options are checked, and ``metadata`` is copied, before the store is opened: the caller may
    change its values while that is awaited. ``given`` must be a copy already.
    """
    if delay is not None and at is not None:
        raise InvalidInputError("pass delay or at, not both")
    if metadata is not None and not isinstance(cast("object", metadata), Mapping):
        raise InvalidInputError(f"metadata is {metadata!r}, but must be a mapping of names to JSON")
    wanted = _wanted_id(target, run_id, idempotency_key, tenant)
    order = _CheckedOptions(
        metadata=None if metadata is None else _copied(metadata),
        priority=priority,
        delay_seconds=0.0 if delay is None else _seconds("delay", delay, least=0),
        at=at,
        deadline_seconds=None if deadline is None else _seconds("deadline", deadline, least=0.001),
    )
    if idempotency_key is not None:
        request_sha256 = request_digest(target, sent, **order)
    if deadline is None:
        order["deadline_seconds"] = policy_deadline
    trace = trace_to_carry(trace)
    store = await open_store()
    submit = functools.partial(
        store.submit,
        wanted,
        target,
        input=given,
        tenant=tenant,
        trace=trace,
        request_sha256=request_sha256,
        **order,
    )
    if idempotency_key is None:
        await submit()
        return wanted
    return await _submit_or_find(store, submit, idempotency_key)


def _copied(metadata: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    return cast("Mapping[str, JsonValue]", copy_json(dict(metadata), "the metadata"))


class _CheckedOptions(TypedDict):
    """The checked options, as ``WorkStore.submit`` and ``request_digest`` take them."""

    metadata: Mapping[str, JsonValue] | None
    priority: int
    delay_seconds: float
    at: datetime | None
    deadline_seconds: float | None


async def _submit_or_find(store: WorkStore, submit: functools.partial[Any], key: str) -> str:
    """Submit a run with an id derived from a key, or find the existing one; returns the id."""
    run_id, target = submit.args
    given, digest = submit.keywords["input"], submit.keywords["request_sha256"]
    input_json = None if given is None else encode_json(given, "the input")
    for _ in range(_TRIES):
        try:
            await submit()
            return run_id
        except RunExistsError:
            pass
        try:
            run = await store.snapshot(run_id)
        except RunNotFoundError:
            # It expired after the submission was rejected, so the key is free again.
            continue
        tenant = submit.keywords["tenant"]
        if not is_same(run, digest, input_json=input_json, target=target, tenant=tenant):
            raise IdempotencyConflictError(run_id, target, key)
        return run_id
    raise RunExistsError(run_id)


def _wanted_id(target: str, run_id: str | None, key: str | None, tenant: str | None) -> str:
    if key is None:
        return new_run_id() if run_id is None else check_run_id(run_id)
    if run_id is not None:
        raise InvalidInputError("pass run_id or idempotency_key, not both: the key makes the id")
    return idempotent_run_id(target, key, tenant)


async def retry_run(store: WorkStore, run_id: str, new_id: str | None = None) -> tuple[str, str]:
    """Submit a failed or cancelled run again; the new id, and the target. See ``Fleet.retry``."""
    run = await store.snapshot(run_id)
    if not run.state.is_terminal:
        raise RunNotTerminalError(run_id, str(run.state), "cancel it")
    if run.state is RunState.COMPLETED:
        raise InvalidInputError(f"run {run_id!r} completed: submit new work as a new run")
    given = await store.get_input(run_id)
    metadata = run.metadata if isinstance(run.metadata, dict) else {}
    span_ms = run.deadline_span_ms
    again = new_run_id() if new_id is None else check_run_id(new_id)
    await store.submit(
        again,
        run.target,
        input=given,
        metadata={**metadata, "retry_of": run_id},
        tenant=run.tenant,
        priority=run.priority,
        deadline_seconds=None if span_ms is None else span_ms / 1000,
        trace=run.trace or trace_to_carry(None),
    )
    return again, run.target


def _seconds(name: str, given: float | timedelta, *, least: float) -> float:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    return checked_seconds(name, seconds, least=least)
