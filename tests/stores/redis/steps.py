"""Sequences of commands, drawn by hypothesis; symbols are resolved when a step is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from hypothesis import strategies as st

from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
    Command,
    Create,
    Delete,
    DeliverCancel,
    Finish,
    Payload,
    PushEvent,
    Release,
    RequestCancel,
    Seal,
    SetResult,
    SetState,
    UpdateProgress,
)
from murmur_streams.core.model.entries import Fields
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.limits import Limits, new_epoch
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import TERMINAL_STATES, RunProgress, RunState

RUN_IDS = ("a", "b:3", "c9")
"""All in one partition of 16."""
TARGETS = ("alpha", "beta.2")
TENANTS = (None, None, None, "acme", "beta.2")
CLOSING = (RunEventType.AGENT_COMPLETED, RunEventType.RUN_CANCELLED)
"""The events that a run remembers: they are drawn more often."""
Build = Callable[[Run | None], Command]


@dataclass(frozen=True)
class Part:
    """One caller's command on a run."""

    run_id: str
    name: str
    build: Build

    def __repr__(self) -> str:
        return f"{self.name} {self.run_id}"


@dataclass(frozen=True)
class Send:
    """Commands in one call, by the store's writer or by hand.

    ``ahead`` None: through the store. Else: its number is the producer's last one plus this.
    """

    parts: tuple[Part, ...]
    producer: str = ""
    ahead: int | None = None

    def __repr__(self) -> str:
        way = "" if self.ahead is None else f" by {self.producer}{self.ahead:+d}"
        return f"<{', '.join(map(repr, self.parts))}{way}>"


@dataclass(frozen=True)
class Claim:
    """A worker asks for runs; ``lost``: its leases have run out at once."""

    targets: tuple[str, ...]
    count: int
    lost: bool
    max_attempts: int = 0


@dataclass(frozen=True)
class Beat:
    """A worker's heartbeat for every run, with the claim that holds or a stale one."""

    stale: bool
    lost: bool
    silent_ms: int = 0


@dataclass(frozen=True)
class Tick:
    """The caller's clock moves."""

    ms: int


@dataclass(frozen=True)
class Rebuild:
    """A run's hash or its index rows are damaged by hand, and rebuilt."""

    run_id: str
    damage: Damage


Damage = Literal[
    "hash gone",
    "state",
    "version",
    "stranger",
    "index gone",
    "wrong index",
    "tenant gone",
    "queue gone",
    "lease gone",
]
Step = Send | Claim | Beat | Tick | Rebuild | Literal["tend", "heal", "sweep"]
HOUR_MS = 3_600_000
AT_ONCE_MS = -1_000_000_000
"""A silence that is over before it began."""


def payload(text: str) -> Payload:
    """A payload as the store makes it."""
    return Limits().result(text)


def claimed(run: Run | None, symbol: str | None) -> str | None:
    """``held`` is the claim that holds the run."""
    if symbol != "held":
        return symbol
    return (run.claim if run is not None else None) or "nobody"


def _event(kind: RunEventType, agent: str | None, data: str | None) -> Fields:
    fields = {"type": str(kind)}
    if agent is not None:
        fields["agent"] = agent
    if data is not None:
        fields["data"] = data
    return {**fields, "ts": "2026-01-01T00:00:00+00:00"}


runs = st.sampled_from(("a", "a", "a", "a", "a", *RUN_IDS))
claims = st.sampled_from((None, None, "held", "held", "stale"))
events = st.builds(
    _event,
    st.sampled_from(CLOSING) | st.sampled_from(RunEventType),
    st.sampled_from((None, "", "other", *TARGETS)),
    st.sampled_from((None, "1", '"ключ"', f'"{"x" * 1200}"')),
)
payloads = st.sampled_from(("1", '{"kind":"agent"}', '"é"')).map(payload)
progress = st.builds(RunProgress, total=st.integers(0, 3), running=st.integers(0, 2))


def _create(target: str, given: Payload | None, metadata: str | None, tenant: str | None) -> Build:
    return lambda _: Create(target, new_epoch(), given, metadata, tenant)


def _submit(created: Build, order: dict[str, Any]) -> Build:
    return lambda run: replace(cast("Create", created(run)), queued=True, **order)


def _append(batch: list[Fields], ahead: int | None, claim: str | None) -> Build:
    def build(run: Run | None) -> Command:
        expected = None if ahead is None else (run.version if run is not None else 0) + ahead
        return Append(tuple(batch), expected, claimed(run, claim))

    return build


def _finish(
    state: RunState,
    result: Payload | None,
    event: Fields | None,
    error: str | None,
    claim: str | None,
    dead: str | None,
    stopped: str | None,
) -> Build:
    buried = dead if state is RunState.FAILED else None
    return lambda run: Finish(state, result, event, error, claimed(run, claim), buried, stopped)


def _by_holder(make: Callable[[str], Command]) -> st.SearchStrategy[Build]:
    def build(symbol: str) -> Build:
        return lambda run: make(claimed(run, symbol) or "")

    return st.sampled_from(("held", "held", "stale")).map(build)


def _always(command: Command) -> Build:
    return lambda _: command


creates = st.builds(
    _create,
    st.sampled_from(TARGETS),
    st.none() | payloads,
    st.sampled_from((None, '{"k":1}')),
    st.sampled_from(TENANTS),
)
orders = st.fixed_dictionaries(
    {
        "priority": st.sampled_from((0, 0, 5, -100)),
        "delay_ms": st.sampled_from((0, 0, 0, HOUR_MS)),
        "due_ms": st.sampled_from((None, None, 1_000_000, 4_000_000_000_000)),
        "deadline_ms": st.sampled_from((0, HOUR_MS)),
        "traceparent": st.sampled_from((None, "00-0af7-b7ad-01")),
    }
)
submits = st.builds(_submit, creates, st.just({}) | orders)
BUILDS: dict[str, st.SearchStrategy[Build]] = {
    "create": creates,
    "submit": submits,
    "append": st.builds(
        _append,
        st.lists(events, min_size=1, max_size=3),
        st.sampled_from((None, None, 0, 1, 2, -1)),
        claims,
    ),
    "push_event": st.builds(PushEvent, events).map(_always),
    "set_state": st.builds(SetState, st.sampled_from((*RunState, RunState.CANCELLED))).map(_always),
    "finish": st.builds(
        _finish,
        st.sampled_from(sorted(TERMINAL_STATES)),
        st.none() | payloads,
        st.none() | events,
        st.sampled_from((None, "it broke")),
        claims,
        st.sampled_from((None, "not_retryable")),
        st.sampled_from((None, "grace")),
    ),
    "update_progress": st.builds(
        lambda counters, claim: lambda run: UpdateProgress(counters, claimed(run, claim)),
        progress,
        claims,
    ),
    "set_result": st.builds(SetResult, payloads).map(_always),
    "seal": st.just(_always(Seal())),
    "release": st.builds(
        lambda reason, delay_ms, error: _by_holder(
            lambda claim: Release(reason, claim, delay_ms, error)
        ),
        st.sampled_from(("failed", "failed", "worker_stopped", "retry_later", "lost")),
        st.sampled_from((0, 0, 0, HOUR_MS)),
        st.sampled_from((None, "it\nbroke", "x" * 3_990)),
    ).flatmap(lambda built: built),
    "request_cancel": st.sampled_from(((None, None), ("why", "desk")))
    .map(lambda given: RequestCancel(*given))
    .map(_always),
    "deliver_cancel": _by_holder(DeliverCancel),
    "checkpoint": payloads.flatmap(
        lambda value: _by_holder(lambda claim: Checkpoint(value, claim))
    ),
    "delete": st.builds(Delete, st.booleans()).map(_always),
}


names = st.sampled_from(("update_progress", "append", "push_event", "set_state", *BUILDS))


@st.composite
def sends(draw: st.DrawFn) -> Send:
    count = draw(st.sampled_from((1, 1, 1, 2, 4, 6)))
    one_name = draw(st.booleans())
    name = draw(names)
    parts: list[Part] = []
    for _ in range(count):
        name = name if one_name else draw(names)
        parts.append(Part(draw(runs), name, draw(BUILDS[name])))
    producer, ahead = draw(
        st.sampled_from(
            (("", None), ("", None), ("", None), ("p", 0), ("p", 1), ("p", -1), ("q", 2))
        )
    )
    return Send(tuple(parts), producer, ahead)


KINDS: dict[str, st.SearchStrategy[Step]] = {
    "send": sends(),
    "tick": st.builds(Tick, st.sampled_from((0, 400, 1500, -700, -1500))),
    "claim": st.builds(
        Claim,
        st.sampled_from((TARGETS, TARGETS[:1], TARGETS[::-1])),
        st.integers(1, 4),
        st.booleans(),
        st.sampled_from((0, 0, 2)),
    ),
    "beat": st.builds(Beat, st.booleans(), st.booleans(), st.sampled_from((0, AT_ONCE_MS))),
    "rebuild": st.builds(Rebuild, runs, st.sampled_from(get_args(Damage))),
    "upkeep": st.sampled_from(("tend", "tend", "tend", "heal", "sweep")),
}
# A list of names, since one_of would draw "send" as often as each of the others.
steps: st.SearchStrategy[Step] = st.sampled_from(
    [*["send"] * 12, "tick", "tick", "claim", "claim", "beat", "rebuild", "upkeep"]
).flatmap(KINDS.__getitem__)


def _opening(target: str, *, enqueue: bool, tenant: str | None) -> list[Step]:
    created = _create(target, None, None, tenant)
    if not enqueue:
        return [Send((Part("a", "create", created),))]
    return [Send((Part("a", "submit", _submit(created, {})),))]


def _running() -> Step:
    return Send((Part("a", "set_state", _always(SetState(RunState.RUNNING))),))


def _openings(tenant: str | None) -> tuple[list[Step], ...]:
    created = _opening(TARGETS[0], enqueue=False, tenant=tenant)
    submitted = _opening(TARGETS[0], enqueue=True, tenant=tenant)
    other = _opening(TARGETS[1], enqueue=True, tenant=tenant)
    return (
        [],
        created,
        submitted,
        [*other, Claim(TARGETS, 1, lost=False)],
        [*other, Claim(TARGETS, 2, lost=True)],
        [*submitted, _running()],
        [
            *submitted,
            Claim(TARGETS, 1, lost=True),
            Send((Part("a", "request_cancel", _always(RequestCancel())),)),
        ],
    )


openings: st.SearchStrategy[list[Step]] = (
    st.sampled_from(TENANTS).map(_openings).flatmap(st.sampled_from)
)
sequences = st.builds(
    lambda opening, rest: [*opening, *rest], openings, st.lists(steps, min_size=12, max_size=40)
)
