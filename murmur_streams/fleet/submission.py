"""Checks the options of a submission, submits, and finds the run of a repeated request.

The run id of an idempotency key is derived from it, and the digest of the request is stored.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any, Unpack, cast

from pydantic import BaseModel, JsonValue
from pydantic_core import PydanticSerializationError, to_jsonable_python

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.limits import check_run_id, check_tenant, new_run_id
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.requests import QueuedRunOptions, due_milliseconds, resubmission
from murmur_streams.fleet.current import trace_to_carry
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire.requests import LONGEST_KEY, CheckedOptions, SubmitOptions, check_options

KEYED = "idem-"
"""Run ids that are derived from a key begin with this."""


def idempotent_run_id(target: str, key: str, tenant: str | None = None) -> str:
    """The run id of an idempotency key, which belongs to a target and perhaps to a tenant.

    Raises:
        InvalidInputError: the key is not text, empty, or longer than 1,024 characters; the tenant
            breaks the rules of tenants.
    """
    if not isinstance(cast("object", key), str):
        raise errors.InvalidInputError(f"idempotency_key is {key!r}, but must be text")
    if not 1 <= len(key) <= LONGEST_KEY:
        raise errors.InvalidInputError(
            f"idempotency_key has {len(key):,} characters, but must have 1 to {LONGEST_KEY:,}"
        )
    # A NUL separates: tenants and targets cannot contain it.
    parts = f"{check_tenant(tenant) or ''}\0{target}\0{key}".encode("utf-8", "surrogatepass")
    return f"{KEYED}{hashlib.sha256(parts).hexdigest()[:32]}"


def request_digest(target: str, sent: JsonValue, **options: Unpack[CheckedOptions]) -> str:
    """The SHA-256 of a request with a key; a later request with the same key is compared by it.

    It covers the request and not the run: values that the agent's type or policy fill in (an id,
    the time, a deadline) differ between a request and its repetition. The order of members does not
    count. Its form can never change, because pods and workers of different releases compare it.

    Args:
        target: the agent's name.
        sent: the input, as ``sent_form`` makes it or as JSON from outside.
        options: as the caller sent them.
    """
    at, deadline = options.get("at"), options.get("deadline_seconds")
    request: dict[str, object] = {
        "target": target,
        "input": sent,
        "metadata": options.get("metadata") or None,
        "priority": options.get("priority") or None,
        "delay": float(options.get("delay_seconds", 0)) or None,
        "at": None if at is None else due_milliseconds(at),
        "deadline": None if deadline is None else float(deadline),
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
    # An old release submitted it, without a digest: compare target and stored input.
    stored = None if input_json is None else hashlib.sha256(input_json.encode()).hexdigest()
    return (run.target, run.input_sha256) == (target, stored)


def sent_form(value: object, encoded: JsonValue) -> JsonValue:
    """The input as the caller passed it, in the same form for equal inputs.

    Only the fields that the caller has set in a model count, and sets are sorted: an id that a
    ``default_factory`` draws and the order of a set in this process are not the caller's.

    Args:
        value: the caller's input.
        encoded: its JSON as it is stored, for values that have no other form.
    """
    try:
        return _form(value)
    except (PydanticSerializationError, ValueError, RecursionError):
        return encoded


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
    """The fields that were set, by their names in JSON."""
    fields = type(model).model_fields
    if "root" in fields:
        return getattr(model, "root", None)
    values = {name: getattr(model, name) for name in model.model_fields_set if name in fields}
    named = {fields[name].alias or name: value for name, value in values.items()}
    return {**named, **(model.__pydantic_extra__ or {})}


_text = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


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
        input_json = None if given is None else encode_json(given, "the input")
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
