"""Checks the options of a submission, submits, and finds the run of a repeated request."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Unpack

from pydantic import JsonValue

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.dead_letters import resubmission
from murmur_streams.core.model.identifiers import check_run_id, new_run_id
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.requests import QueuedRunOptions
from murmur_streams.fleet.idempotency import idempotent_run_id, is_same, request_digest
from murmur_streams.fleet.trace import trace_to_carry
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.requests import SubmitOptions, check_options

_TRIES = 3


async def submit_run(
    open_store: Callable[[], Awaitable[WorkStore]],
    target: str,
    given: JsonValue,
    *,
    sent: JsonValue = None,
    request_sha256: str | None = None,
    policy_deadline: float | None = None,
    **options: Unpack[SubmitOptions],
) -> str:
    """Submit a run and return its id. Options and errors are those of ``Fleet.submit``.

    ``given`` is the input as it is stored, ``sent`` as ``sent_form`` makes it for the digest of a
    key. ``request_sha256`` is a digest of the caller's own, which also passes its own run id.
    ``policy_deadline``, in seconds, is the agent's deadline, for a submission without one.

    The options are checked and copied before the store is opened: the caller may change its values
    while that is awaited. ``given`` must be a copy already.
    """
    checked = check_options(options, SubmitOptions)
    key, tenant = options.get("idempotency_key"), options.get("tenant")
    if key is None:
        run_id = options.get("run_id") or new_run_id()
    else:
        run_id = idempotent_run_id(target, key, tenant)
        request_sha256 = request_digest(target, sent, **checked)
    if checked.get("deadline_seconds") is None:
        checked["deadline_seconds"] = policy_deadline
    order = QueuedRunOptions(
        **checked,
        input=given,
        tenant=tenant,
        trace=trace_to_carry(options.get("trace")),
        request_sha256=request_sha256,
    )
    store = await open_store()
    if key is None:
        await store.submit(run_id, target, **order)
        return run_id
    return await _submit_or_find(store, run_id, target, key, order)


async def _submit_or_find(
    store: WorkStore, run_id: str, target: str, key: str, order: QueuedRunOptions
) -> str:
    """Submit a run with an id derived from a key, or find the existing one; returns the id."""
    given = order.get("input")
    input_json = None if given is None else encode_json(given, "the input")
    digest, tenant = order.get("request_sha256") or "", order.get("tenant")
    for _ in range(_TRIES):
        with contextlib.suppress(errors.RunExistsError):
            await store.submit(run_id, target, **order)
            return run_id
        try:
            run = await store.snapshot(run_id)
        except errors.RunNotFoundError:
            # It expired after the submission was rejected, so the key is free again.
            continue
        if not is_same(run, digest, input_json=input_json, target=target, tenant=tenant):
            raise errors.IdempotencyConflictError(run_id, target, key)
        return run_id
    raise errors.RunExistsError(run_id)


async def retry_run(store: WorkStore, run_id: str, new_id: str | None = None) -> tuple[str, str]:
    """Submit a failed or cancelled run again; the new id, and the target. See ``Fleet.retry``."""
    run = await store.snapshot(run_id)
    if not run.state.is_terminal:
        raise errors.RunNotTerminalError(run_id, str(run.state), "cancel it")
    if run.state is RunState.COMPLETED:
        raise errors.InvalidInputError(f"run {run_id!r} completed: submit new work as a new run")
    options = resubmission(run, await store.get_input(run_id), "retry_of")
    options["trace"] = run.trace or trace_to_carry(None)
    again = new_run_id() if new_id is None else check_run_id(new_id)
    await store.submit(again, run.target, **options)
    return again, run.target
