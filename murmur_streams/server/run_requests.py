"""The runs of requests: submits one, once for each idempotency key, and waits for its end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request
from pydantic import JsonValue

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.limits import check_target
from murmur_streams.core.model.run import Run
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.fleet.submission import KEYED, idempotent_run_id, is_same, request_digest
from murmur_streams.server.auth import Principal
from murmur_streams.server.inputs import parse_json, pod_of
from murmur_streams.server.pod import Pod
from murmur_streams.stores.own_tasks import end_tasks, start_task
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire import problems as kinds
from murmur_streams.wire import requests
from murmur_streams.wire.problems import ProblemError

MOST_PAST = timedelta(days=1)
"""A start further back is a mistake, not a request that arrived late."""
_KEY = re.compile(r"[\x21-\x7e]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_TRIES = 3
LOOK_SECONDS = 0.25
"""The longest time that an answer waits for the check for workers, once a minute for a target."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The run of a request."""

    run_id: str
    is_replay: bool = False
    """The key was used before, for the same work; the run existed."""
    handle: RunHandle[Any] | None = None
    """None for a replay."""

    async def warning(self) -> str | None:
        """A warning for the client, though the run is queued: no worker serves the target."""
        return None if self.handle is None else await self.handle.unserved(LOOK_SECONDS)


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key of a request, with or without the quotes of a structured field.

    Raises:
        ProblemError: it is empty, too long, or has other than visible characters.
    """
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return None
    quoted = _QUOTED.fullmatch(given)
    is_bare = quoted is None and '"' not in given
    key = given if quoted is None else re.sub(r"\\(.)", r"\1", quoted[1])
    most = requests.LONGEST_HEADER_KEY
    if (is_bare or quoted) and _KEY.fullmatch(key) and len(key) <= most:
        return key
    rule = f"Idempotency-Key must have 1 to {most} visible characters of ASCII"
    raise ProblemError(kinds.BAD_REQUEST, rule)


async def submit(
    request: Request, who: Principal, body: requests.SubmitRequest, key: str | None
) -> Submission:
    """Submit a run; with a key, a second request for the same work returns the first run.

    Raises:
        ProblemError: the agent or group does not exist; or the key belongs to other work, or to a
            request that is still in progress here.
        InvalidInputError: a value breaks a rule.
        RunExistsError: the run id is taken.
    """
    pod = pod_of(request)
    agent = _agent(pod, body)
    work = _RequestedWork(pod, who, body, agent, _input(agent, body, pod), _trace(request))
    if key is None:
        if body.run_id is not None and body.run_id.startswith(KEYED):
            # A client that guesses another's key could create the run under the key's id first.
            raise errors.InvalidInputError(
                f"ids that begin with {KEYED} are made by keys; choose another"
            )
        submission = await work.submit(body.run_id)
    else:
        submission = await _submit_once(work, key)
    if not submission.is_replay:
        pod.metrics.submitted()
    return submission


@dataclass(frozen=True, slots=True)
class _RequestedWork:
    pod: Pod
    who: Principal
    body: requests.SubmitRequest
    agent: Agent | None
    given: JsonValue
    trace: Mapping[str, str] | None

    async def submit(self, run_id: str | None) -> Submission:
        body = self.body
        if body.at is not None and body.at < datetime.now(UTC) - MOST_PAST:
            raise errors.InvalidInputError(
                "at is over for more than a day; leave it out to start at once"
            )
        own = requests.SubmitOptions(run_id=run_id, tenant=self.who.tenant, trace=self.trace)
        handle = await self.pod.fleet.submit_json(
            body.target,
            self.given,
            request_sha256=None if run_id is None else self.digest,
            **{**body.options, **own},
        )
        return Submission(handle.run_id, handle=handle)

    @property
    def digest(self) -> str:
        """The digest of the client's request; a second request under the key must have the same."""
        body = self.body
        return request_digest(body.target, body.task.input, **requests.check_options(body.options))

    def is_same(self, run: Run) -> bool:
        """Whether the run of a key was submitted by a request like this one."""
        given, agent = self.given, self.agent
        encoded = given if agent is None else agent.encode_json_input(given)
        text = None if encoded is None else encode_json(encoded, "the input")
        return is_same(
            run, self.digest, input_json=text, target=self.body.target, tenant=self.who.tenant
        )


async def _submit_once(work: _RequestedWork, key: str) -> Submission:
    if work.body.run_id is not None:
        raise errors.InvalidInputError(
            "send run_id or Idempotency-Key, not both: the key makes the id"
        )
    # "" instead of the target: the same key with another target must find this run, and is then
    # refused as other work. No target has an empty name.
    run_id = idempotent_run_id("", key, work.who.tenant)
    flight = (work.who.tenant, key)
    if flight in work.pod.in_flight:
        raise ProblemError(kinds.IN_FLIGHT)
    work.pod.in_flight.add(flight)
    try:
        return await _find_or_submit(work, run_id)
    finally:
        work.pod.in_flight.discard(flight)


async def _find_or_submit(work: _RequestedWork, run_id: str) -> Submission:
    store = await work.pod.store()
    for _ in range(_TRIES):
        try:
            # Looked up before it is submitted: a repeated request succeeds although rules of input
            # may have changed since the first one.
            run = await store.snapshot(run_id)
            if run.tenant != work.who.tenant:
                # Another tenant has computed the key's id and submitted a run with that id.
                raise errors.RunExistsError(run_id)
            if not work.is_same(run):
                raise ProblemError(
                    kinds.KEY_REUSED, "this Idempotency-Key was used for another request"
                )
            return Submission(run_id, is_replay=True)
        except errors.RunNotFoundError:
            pass
        try:
            return await work.submit(run_id)
        except errors.RunExistsError:
            # Another pod has submitted it between the two calls.
            continue
    raise errors.RunExistsError(run_id)


def _agent(pod: Pod, body: requests.SubmitRequest) -> Agent | None:
    """The agent; None for a fleet without agents, which submits to any name."""
    target = check_target(body.target)
    if body.is_group:
        raise ProblemError(kinds.NO_GROUP, f"this fleet has no group {target!r}")
    agents = pod.fleet.agents
    if agents and target not in agents:
        raise ProblemError(kinds.NO_AGENT, f"this fleet has no agent {target!r}", agent=target)
    return agents.get(target)


def _input(agent: Agent | None, body: requests.SubmitRequest, pod: Pod) -> JsonValue:
    given = body.task.input
    if agent is None or not isinstance(given, str):
        return given
    if agent.input_name is None and not given:
        return None
    try:
        agent.encode_json_input(given)
    except errors.InvalidPayloadError:
        # Clients of murmur-runtime send every input as text.
        with contextlib.suppress(ProblemError):
            return parse_json(given.encode(), pod.options)
    return given


def _trace(request: Request) -> dict[str, str] | None:
    names = ("traceparent", "tracestate")
    found: dict[str, Any] = {name: ",".join(request.headers.getlist(name)) for name in names}
    # None: the server's own span becomes the run's parent.
    return {name: text for name, text in found.items() if text} or None


_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rf'(?:{_NAME}|"(?:[^"\\]|\\.)*")'
_PREFERENCE = re.compile(
    rf"\s*({_NAME})\s*(?:=\s*({_TEXT})\s*)?(?:;\s*(?:{_NAME}\s*(?:=\s*{_TEXT}\s*)?)?)*(?:,|$)"
)
_LONGEST_NUMBER = 9


def preferred_wait(request: Request, most_seconds: float) -> int | None:
    """The whole seconds of ``Prefer: wait=N`` (RFC 7240), capped at what the server grants.

    None without one. A header that cannot be parsed is ignored, as the RFC asks.
    """
    text, at = ",".join(request.headers.getlist("Prefer")), 0
    while at < len(text):
        found = _PREFERENCE.match(text, at)
        if found is None:
            return None
        if found[1].lower() == "wait":
            # The RFC: of two, the first counts.
            seconds = (found[2] or "").strip('"')
            if not (seconds.isascii() and seconds.isdigit()):
                return None
            most = math.floor(most_seconds)
            return most if len(seconds.lstrip("0")) > _LONGEST_NUMBER else min(int(seconds), most)
        at = found.end()
    return None


async def until(request: Request, work: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Wait for work to finish; return whether it did. Its exceptions are raised.

    The wait ends early when its time is over, the pod drains, or the client leaves.
    """
    working = start_task(work, "wait for a run")
    drain = start_task(pod_of(request).drain.wait(), "wait for the drain")
    gone = start_task(_gone(request), "wait for the client's end")
    try:
        await asyncio.wait(
            {working, drain, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not working.done():
            return False
        await working
        return True
    finally:
        await end_tasks({working, drain, gone})


async def until_ended(request: Request, who: Principal, run: Run, seconds: float) -> bool:
    """Wait for a run's end, if the pod accepts another open stream; return whether it ended."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(pod_of(request).streaming(who))
        except ProblemError:
            # The request itself has succeeded: only the wait is refused.
            return False
        return await until(request, ended(await pod_of(request).store(), run), seconds)


async def ended(store: WorkStore, run: Run) -> None:
    """Return when the run's stream has ended."""
    while not run.state.is_terminal:
        # Entries that were trimmed meanwhile do not matter here: only the end does.
        with contextlib.suppress(errors.CursorGapError):
            async with aclosing(store.stream(run.run_id, after=run.cursor)) as events:
                async for _ in events:
                    pass
        run = await store.snapshot(run.run_id)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
