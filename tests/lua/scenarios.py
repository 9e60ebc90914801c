"""Small scenarios in which each write script succeeds, by every way through it that writes more."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from murmur_streams.core.model.commands import (
    Append,
    Checkpoint,
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
from murmur_streams.core.model.run import listing_key
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.model.work import Beat, Claim, TargetRule, WorkerInfo
from murmur_streams.stores.redis.counts import PartitionCounts
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.store import RedisRunStore
from tests.servers import Space
from tests.stores.redis.hand import HandWriter, calls_by_hand
from tests.stores.redis.working import expire_leases, server_ms, take

RUN, OTHER = "run", "other"
HOUR_MS = 3_600_000
PAYLOAD = Payload("7", 1, hashlib.sha256(b"7").hexdigest())
EVENT = {"type": "custom", "name": "note", "data": "1"}
CLOSING = {"type": "agent_completed", "agent": "work"}
Script = tuple[str, list[str], list[str | int]]


def progress(total: int, completed: int) -> RunProgress:
    return RunProgress(total=total, completed=completed, failed=0, running=1)


class CaughtError(Exception):
    """The call was recorded and not sent."""


@dataclass
class Stage:
    """The stage of a scenario: a store, its queue, and calls that are sent once."""

    space: Space
    store: RedisRunStore
    allowed: str = ""
    """A script that is sent although the scenario is about another one."""

    def __post_init__(self) -> None:
        self.queue = self.store.queue(lease_seconds=60)
        self.admin: Any = self.space.admin
        self.keys = self.space.keys
        durations = self.store._durations
        # A snapshot at every second entry.
        self.short = Durations(
            ttl_ms=HOUR_MS, live_ttl_ms=durations.live_ttl_ms, late_event_ms=0,
            feed_max_entries=durations.feed_max_entries, max_events=4, owner=("owner", 30_000),
        )  # fmt: skip

    async def send(self, command: Any, run_id: str = RUN) -> None:
        """Send a command to its script, under a producer of its own."""
        await calls_by_hand(self.hand(), self.short).execute(run_id, command)

    def hand(self) -> HandWriter:
        """A writer with a producer of its own, for one call."""
        writer = HandWriter(self.store, self.short, lambda: server_ms(self.space))
        writer.producer, writer.n = secrets.token_hex(4), 1
        return writer

    async def submit(self, run_id: str = RUN, **options: Any) -> None:
        await self.store.submit(run_id, "work", input=1, tenant="acme", metadata={}, **options)

    async def held(self, run_id: str = RUN) -> Claim:
        """A run that a worker holds."""
        await self.submit(run_id)
        (claim,) = await take(self.queue)
        return claim

    async def running(self) -> None:
        """A run of a program without workers."""
        await self.store.create(RUN, "work", input=1, tenant="acme")
        await self.send(SetState(RunState.RUNNING))

    async def ended(self, state: RunState = RunState.COMPLETED) -> None:
        await self.submit()
        await self.send(Finish(state, result=PAYLOAD))

    def make_overdue(self, run_id: str = RUN) -> None:
        """As if the run had been without a write for as long as it may be."""
        created_ms = int(self.admin.hget(self.keys.run(run_id), "created_ms"))
        self.admin.hset(self.keys.run(run_id), "live_until", 1)
        row = f"work/acme:{listing_key(created_ms, run_id)}"
        self.admin.zadd(self.keys.overdue(0), {row: 1})

    def make_expired(self, run_id: str = OTHER) -> None:
        """Only its rows are left of an ended run."""
        created_ms = int(self.admin.hget(self.keys.run(run_id), "created_ms"))
        row = f"work/acme:{listing_key(created_ms, run_id)}"
        self.admin.zadd(self.keys.expiring(0), {row: 1})
        self.admin.delete(*self.keys.of_run(run_id))


Scenario = Callable[[Stage], Awaitable[Any]]
"""Plays what comes before, and returns the call."""
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    """Register it by its name."""
    SCENARIOS[play.__name__] = play
    return play


@scenario
async def create(stage: Stage) -> Any:
    return stage.send(Create("work", "e", PAYLOAD, "{}", "acme"))


@scenario
async def create_with_leftovers(stage: Stage) -> Any:
    await stage.store.submit(OTHER, "work", tenant="acme")
    await stage.store.finish(OTHER, RunState.COMPLETED)
    await stage.submit("third")
    stage.make_expired()
    stage.make_overdue("third")
    return stage.send(Create("work", "e", PAYLOAD))


@scenario
async def create_after_delete(stage: Stage) -> Any:
    await stage.ended()
    await stage.store.delete(RUN)
    return stage.send(Create("work", "e", PAYLOAD))


@scenario
async def submit(stage: Stage) -> Any:
    return stage.send(Create("work", "e", PAYLOAD, "{}", "acme", queued=True, deadline_ms=HOUR_MS))


@scenario
async def submit_delayed(stage: Stage) -> Any:
    return stage.send(Create("work", "e", queued=True, delay_ms=HOUR_MS, priority=2))


@scenario
async def requeue(stage: Stage) -> Any:
    claim = await stage.held()
    await stage.send(Finish(RunState.FAILED, error="no", claim=claim.token, dead="failed"))
    return stage.store.dead_letters().requeue(RUN)


@scenario
async def append(stage: Stage) -> Any:
    await stage.submit()
    return stage.send(Append((EVENT,)))


@scenario
async def append_two(stage: Stage) -> Any:
    await stage.submit()
    return stage.send(Append((EVENT, CLOSING, EVENT)))


@scenario
async def append_claimed(stage: Stage) -> Any:
    claim = await stage.held()
    return stage.send(Append((EVENT,), claim=claim.token))


@scenario
async def append_with_dirty_progress(stage: Stage) -> Any:
    claim = await stage.held()
    for total in (3, 4):
        await stage.send(UpdateProgress(progress(total, 1), claim=claim.token))
    return stage.send(Append((EVENT, EVENT, EVENT), claim=claim.token))


@scenario
async def append_pruning(stage: Stage) -> Any:
    await stage.submit()
    for _ in range(17):
        await stage.send(Append((EVENT,)))
    return stage.send(Append((EVENT,)))


@scenario
async def push_event(stage: Stage) -> Any:
    await stage.submit()
    return stage.send(PushEvent(CLOSING))


@scenario
async def push_event_late(stage: Stage) -> Any:
    await stage.ended()
    return stage.send(PushEvent(CLOSING))


@scenario
async def push_event_sealing(stage: Stage) -> Any:
    await stage.submit()
    await stage.send(SetState(RunState.COMPLETED))
    return stage.send(PushEvent(CLOSING))


@scenario
async def set_state_running(stage: Stage) -> Any:
    await stage.submit()
    return stage.send(SetState(RunState.RUNNING))


@scenario
async def set_state_pending(stage: Stage) -> Any:
    await stage.held()
    return stage.send(SetState(RunState.PENDING))


@scenario
async def set_state_owned_pending(stage: Stage) -> Any:
    await stage.running()
    return stage.send(SetState(RunState.PENDING))


@scenario
async def set_state_ended(stage: Stage) -> Any:
    await stage.running()
    return stage.send(SetState(RunState.FAILED))


@scenario
async def set_state_cancelled_instead(stage: Stage) -> Any:
    await stage.running()
    await stage.send(RequestCancel())
    return stage.send(SetState(RunState.PENDING))


@scenario
async def finish(stage: Stage) -> Any:
    await stage.running()
    return stage.send(Finish(RunState.COMPLETED, result=PAYLOAD, event=CLOSING))


@scenario
async def finish_dead(stage: Stage) -> Any:
    claim = await stage.held()
    for total in (3, 4):
        await stage.send(UpdateProgress(progress(total, 1), claim=claim.token))
    return stage.send(Finish(RunState.FAILED, error="no", claim=claim.token, dead="failed"))


@scenario
async def finish_cancelled(stage: Stage) -> Any:
    claim = await stage.held()
    await stage.send(RequestCancel("why", "host"))
    return stage.send(Finish(RunState.COMPLETED, result=PAYLOAD, claim=claim.token))


@scenario
async def finish_with_leftovers(stage: Stage) -> Any:
    await stage.store.submit(OTHER, "work", tenant="acme")
    await stage.store.finish(OTHER, RunState.COMPLETED)
    await stage.submit("third")
    claim = await stage.held()
    stage.make_expired()
    stage.make_overdue("third")
    return stage.send(Finish(RunState.COMPLETED, claim=claim.token), claim.run_id)


@scenario
async def update_progress(stage: Stage) -> Any:
    claim = await stage.held()
    return stage.send(UpdateProgress(progress(3, 1), claim=claim.token))


@scenario
async def update_progress_again(stage: Stage) -> Any:
    claim = await stage.held()
    await stage.send(UpdateProgress(progress(3, 1), claim=claim.token))
    return stage.send(UpdateProgress(progress(3, 2), claim=claim.token))


@scenario
async def set_result(stage: Stage) -> Any:
    await stage.running()
    return stage.send(SetResult(PAYLOAD))


@scenario
async def set_result_ended(stage: Stage) -> Any:
    await stage.submit()
    await stage.send(Finish(RunState.FAILED))
    return stage.send(SetResult(PAYLOAD))


@scenario
async def seal(stage: Stage) -> Any:
    await stage.submit()
    await stage.send(SetState(RunState.COMPLETED))
    return stage.send(Seal())


@scenario
async def release(stage: Stage) -> Any:
    claim = await stage.held()
    return stage.send(Release("failed", claim.token, HOUR_MS, "no"))


@scenario
async def release_cancelled(stage: Stage) -> Any:
    claim = await stage.held()
    await stage.send(RequestCancel())
    return stage.send(Release("worker_stopped", claim.token))


@scenario
async def request_cancel_pending(stage: Stage) -> Any:
    await stage.submit()
    return stage.send(RequestCancel("why", "host"))


@scenario
async def request_cancel_claimed(stage: Stage) -> Any:
    await stage.held()
    return stage.send(RequestCancel("why", "host"))


@scenario
async def request_cancel_owned(stage: Stage) -> Any:
    await stage.running()
    return stage.send(RequestCancel())


@scenario
async def deliver_cancel(stage: Stage) -> Any:
    claim = await stage.held()
    await stage.send(RequestCancel())
    return stage.send(DeliverCancel(claim.token))


@scenario
async def checkpoint(stage: Stage) -> Any:
    claim = await stage.held()
    return stage.send(Checkpoint(PAYLOAD, claim.token))


@scenario
async def delete(stage: Stage) -> Any:
    await stage.ended()
    return stage.send(Delete())


@scenario
async def delete_queued(stage: Stage) -> Any:
    await stage.submit()
    return stage.send(Delete(force=True))


@scenario
async def delete_held(stage: Stage) -> Any:
    await stage.held()
    return stage.send(Delete(force=True))


@scenario
async def confirm(stage: Stage) -> Any:
    await stage.submit()
    keys = stage.keys
    stage.admin.delete(keys.meta)
    stage.admin.hdel(f"{keys.base(0)}:meta", "partitions")

    async def call() -> Any:
        return await stage.store._server.script("confirm", [keys.meta, keys.base(0)], ["1", "1"])

    return call()


@scenario
async def recount(stage: Stage) -> Any:
    await stage.submit()
    calls = stage.store._server.key_space
    return calls.change(PartitionCounts((1, 2)))


@scenario
async def forget_letters(stage: Stage) -> Any:
    held = await stage.held()
    await stage.send(Finish(RunState.FAILED, error="no", claim=held.token, dead="failed"))
    return stage.store.dead_letters().purge(all=True)


@scenario
async def pause(stage: Stage) -> Any:
    return stage.store.pause("work")


@scenario
async def resume(stage: Stage) -> Any:
    await stage.submit()
    await stage.store.pause("work")
    return stage.store.resume("work")


@scenario
async def claim(stage: Stage) -> Any:
    await stage.submit()
    await stage.submit(OTHER)
    return stage.queue.claim("first", [TargetRule("work")], 5, "host")


@scenario
async def claim_delayed(stage: Stage) -> Any:
    await stage.submit(delay_seconds=60)
    key = stage.keys.queue("work", 0)
    stage.admin.zadd(key, {RUN: 10**13 + server_ms(stage.space) - 1})
    return stage.queue.claim("first", [TargetRule("work")], 5, "host")


@scenario
async def claim_exhausted(stage: Stage) -> Any:
    held = await stage.held()
    await stage.send(Release("failed", held.token, error="no"))
    return stage.queue.claim("first", [TargetRule("work", max_attempts=1)], 5, "host")


@scenario
async def heartbeat(stage: Stage) -> Any:
    held = [await stage.held(), await stage.held(OTHER)]
    return stage.queue.heartbeat([Beat(each) for each in held])


@scenario
async def heartbeat_silent(stage: Stage) -> Any:
    held = await stage.held()
    return stage.queue.heartbeat([Beat(held, silent_after_seconds=-3600.0)])


@scenario
async def tend(stage: Stage) -> Any:
    for run_id in (RUN, OTHER):
        await stage.held(run_id)
    expire_leases(stage.space)
    return stage.queue.tend("first", ["work"], 60.0)


@scenario
async def tend_cancelled(stage: Stage) -> Any:
    await stage.held()
    await stage.send(RequestCancel())
    expire_leases(stage.space)
    return stage.queue.tend("first", ["work"], 60.0)


@scenario
async def tend_overdue(stage: Stage) -> Any:
    await stage.submit(OTHER)
    await stage.send(Finish(RunState.COMPLETED), OTHER)
    await stage.submit()
    stage.make_expired()
    stage.make_overdue()
    return stage.queue.tend("first", ["work"], 60.0)


@scenario
async def tend_scrubbing(stage: Stage) -> Any:
    await stage.held(OTHER)
    await stage.submit()
    stage.admin.delete(stage.keys.queue("work", 0))
    return stage.queue.tend("first", ["work"], 60.0)


@scenario
async def sweep(stage: Stage) -> Any:
    await stage.submit(OTHER)
    await stage.send(Finish(RunState.COMPLETED), OTHER)
    await stage.submit()
    stage.make_expired()
    stage.make_overdue()
    return stage.store.sweep()


@scenario
async def sweep_lost(stage: Stage) -> Any:
    await stage.running()
    stage.admin.hset(stage.keys.run(RUN), mapping={"owner_lease_ms": 1})
    stage.admin.zadd(stage.keys.owners(0), {RUN: 1})
    stage.admin.hset(stage.keys.run(RUN), "owner_lease_ms", 0)
    return stage.store.sweep()


@scenario
async def own(stage: Stage) -> Any:
    await stage.running()
    owners = stage.store._owners
    owners._owner, owners._lease_ms, owners._taken = "owner", 30_000, {RUN: 0.0}
    return owners._beat(0)


@scenario
async def rebuild(stage: Stage) -> Any:
    await stage.held()
    stage.admin.hset(stage.keys.run(RUN), "state", "pending")
    return stage.store.rebuild(RUN)


@scenario
async def rebuild_owned(stage: Stage) -> Any:
    await stage.running()
    return stage.store.rebuild(RUN)


@scenario
async def renumber(stage: Stage) -> Any:
    await repeat_a_seq(stage)
    return stage.store.rebuild(RUN)


async def repeat_a_seq(stage: Stage) -> None:
    """An append whose last command was denied leaves its entry; the next has the same seq."""
    await stage.submit()
    ms = stage.admin.hget(stage.keys.run(RUN), "last_ms").decode()
    stage.admin.xadd(stage.keys.journal(RUN), {**EVENT}, id=f"{ms}-2")
    # In the same millisecond the server refuses the next one.
    while server_ms(stage.space) <= int(ms):
        pass
    await stage.send(Append((EVENT,)))


@scenario
async def restore(stage: Stage) -> Any:
    archive = await archived(stage)
    stage.allowed = "restore_page"
    return stage.store.restore(archive)


@scenario
async def restore_page(stage: Stage) -> Any:
    return stage.store.restore(await archived(stage))


async def archived(stage: Stage) -> Any:
    held = await stage.held()
    await stage.send(Checkpoint(PAYLOAD, held.token))
    await stage.send(Release("failed", held.token, error="no"))
    archive = await stage.store.archive(RUN)
    left = [key for key in stage.admin.keys("*") if not key.endswith(b":meta")]
    stage.admin.delete(*left)
    return archive


@scenario
async def register(stage: Stage) -> Any:
    info = WorkerInfo(
        id="worker", host="host", pid=1, version="1", python="3", targets=[], concurrency=1,
        started_ms=1, state="idle", held=0, runs=[], last_beat_ms=0,
    )  # fmt: skip
    return stage.store.workers().beat(info)
