"""From a checked body to a run: its input, its trace, and its idempotency key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request
from pydantic import JsonValue

from murmur_streams.core.json_values import encode_json
from murmur_streams.core.model import errors
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.identifiers import check_target
from murmur_streams.core.model.run import Run
from murmur_streams.fleet.agents import Agent
from murmur_streams.fleet.handle import RunHandle
from murmur_streams.fleet.idempotency import KEYED, idempotent_run_id, is_same, request_digest
from murmur_streams.server.auth.access import pod_of
from murmur_streams.server.auth.principal import Principal
from murmur_streams.server.json_body import parse_json
from murmur_streams.server.pod import Pod
from murmur_streams.server.problems import ProblemError
from murmur_streams.wire.problems import BAD_REQUEST, IN_FLIGHT, KEY_REUSED, NO_AGENT, NO_GROUP
from murmur_streams.wire.requests import SubmitRequest
from murmur_streams.wire.submit_options import LONGEST_HEADER_KEY, SubmitOptions, check_options

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
    if (is_bare or quoted) and _KEY.fullmatch(key) and len(key) <= LONGEST_HEADER_KEY:
        return key
    rule = f"Idempotency-Key must have 1 to {LONGEST_HEADER_KEY} visible characters of ASCII"
    raise ProblemError(BAD_REQUEST, rule)


async def submit(
    request: Request, who: Principal, body: SubmitRequest, key: str | None
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
            raise InvalidInputError(f"ids that begin with {KEYED} are made by keys; choose another")
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
    body: SubmitRequest
    agent: Agent | None
    given: JsonValue
    trace: Mapping[str, str] | None

    async def submit(self, run_id: str | None) -> Submission:
        body = self.body
        if body.at is not None and body.at < datetime.now(UTC) - MOST_PAST:
            raise InvalidInputError("at is over for more than a day; leave it out to start at once")
        own = SubmitOptions(run_id=run_id, tenant=self.who.tenant, trace=self.trace)
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
        return request_digest(body.target, body.task.input, **check_options(body.options))

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
        raise InvalidInputError("send run_id or Idempotency-Key, not both: the key makes the id")
    # "" instead of the target: the same key with another target must find this run, and is then
    # refused as other work. No target has an empty name.
    run_id = idempotent_run_id("", key, work.who.tenant)
    flight = (work.who.tenant, key)
    if flight in work.pod.in_flight:
        raise ProblemError(IN_FLIGHT)
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
                raise ProblemError(KEY_REUSED, "this Idempotency-Key was used for another request")
            return Submission(run_id, is_replay=True)
        except errors.RunNotFoundError:
            pass
        try:
            return await work.submit(run_id)
        except errors.RunExistsError:
            # Another pod has submitted it between the two calls.
            continue
    raise errors.RunExistsError(run_id)


def _agent(pod: Pod, body: SubmitRequest) -> Agent | None:
    """The agent; None for a fleet without agents, which submits to any name."""
    target = check_target(body.target)
    if body.is_group:
        raise ProblemError(NO_GROUP, f"this fleet has no group {target!r}")
    agents = pod.fleet.agents
    if agents and target not in agents:
        raise ProblemError(NO_AGENT, f"this fleet has no agent {target!r}", agent=target)
    return agents.get(target)


def _input(agent: Agent | None, body: SubmitRequest, pod: Pod) -> JsonValue:
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
