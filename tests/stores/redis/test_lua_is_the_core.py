"""The scripts and the pure core are the same rules: both get the same commands, and after each
command answers, states and journals are equal; at the end every key on the server is explained."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from murmur_streams.core.decide import Answer
from murmur_streams.core.errors import RunNotFoundError
from murmur_streams.stores.redis.calls import Calls, Durations
from murmur_streams.stores.redis.rebuild import rebuild_run
from murmur_streams.stores.redis.store import RedisRunStore
from tests.key_audit import audit_keys
from tests.servers import Space
from tests.stores.redis.damage import damage
from tests.stores.redis.hand import HandWriter, calls_by_hand
from tests.stores.redis.model import Model
from tests.stores.redis.partition import Partition, expected_dump, model_as_compared
from tests.stores.redis.steps import RUN_IDS, Beat, Claim, Rebuild, Send, Step, Tick, sequences

LIVE_TTL_MS = 3_600_000
FEED_MAX = 100_000
LOST_MS = -1_000
HELD_MS = 1_000_000
NODE_ENTRIES = 3


class Twins:
    """The server and the model, side by side."""

    def __init__(
        self, store: RedisRunStore, admin: Redis, *, ttl_ms: int, late_ms: int, max_events: int
    ) -> None:
        self.store = store
        self.admin = admin
        self.ttl_ms = ttl_ms
        self.max_events = max_events
        self.model = Model(late_ms, time.time_ns() // 1_000_000, max_events)
        self.partition = Partition(admin, store.keys)
        durations = Durations(ttl_ms, LIVE_TTL_MS, late_ms, FEED_MAX, max_events)
        self.durations = durations
        self.writer = store._writer
        self.hand = HandWriter(store)
        self.calls = Calls(self.writer, store.keys, durations, lambda: self.model.caller_ms)
        self.hand_calls = calls_by_hand(self.hand, store, durations, lambda: self.model.caller_ms)
        self._tokens = itertools.count()

    async def take(self, step: Step) -> None:
        """Do a step on both sides and compare."""
        match step:
            case Send():
                await self._send(step)
            case Claim():
                await self._claim(step)
            case Beat():
                await self._beat(step)
            case Tick():
                self.model.caller_ms += step.ms
            case Rebuild():
                await self._rebuild(step)
            case "reclaim":
                await self._reclaim()
            case "sweep":
                assert await self.store.sweep() == 0

    def compare(self, run_ids: tuple[str, ...]) -> None:
        """State and journal of these runs."""
        for run_id in run_ids:
            oldest = self.partition.oldest(run_id)
            found = self.partition.run_as_compared(run_id)
            assert found == model_as_compared(self.model, run_id, oldest)
            run = self.model.run(run_id)
            if run is not None:
                kept = run.version - oldest + 1
                assert kept >= min(run.version, self.max_events or run.version)
                if run.snapshot == run.version:
                    assert kept < self.max_events + NODE_ENTRIES

    async def compare_all(self) -> None:
        """Every key there is, its type and expiry, and the store's own audit."""
        self.compare(RUN_IDS)
        keys = self.store.keys
        wanted = expected_dump(self.model, self.partition, keys, ttl_ms=self.ttl_ms)
        assert self.partition.dump() == wanted
        assert audit_keys(self.admin, keys.prefix) == []
        for run_id in self.model.lives:
            assert (await self.store.audit(run_id)).problems == ()

    async def _send(self, step: Send) -> None:
        commands = [build(self.model.run(step.run_id)) for build in step.builds]
        if step.ahead is None:
            calls, producer, n = self.calls, self.writer._producer, self.writer._n + 1
        else:
            last, _ = self.model.producers[step.run_id].get(step.producer, (1, ()))
            calls, producer, n = self.hand_calls, step.producer, last + step.ahead
            self.hand.producer, self.hand.n = producer, n
        answers = await asyncio.gather(
            *(calls.execute(step.run_id, command, enqueue=step.enqueue) for command in commands)
        )
        # However many there are, they left in one call.
        assert step.ahead is not None or self.writer._n == n
        if len(commands) == 1:
            wanted = self.model.execute(step.run_id, commands[0], producer, n, enqueue=step.enqueue)
        else:
            wanted = self.model.execute_together(step.run_id, commands, producer, n)
        told = answers[0] if len(wanted) == 1 else tuple(itertools.chain.from_iterable(answers))
        if step.ahead is not None:
            told = self.hand.answer
        assert _times_aside(told) == _times_aside(wanted)
        self.compare((step.run_id,))

    async def _rebuild(self, step: Rebuild) -> None:
        run_id = step.run_id
        if self.model.run(run_id) is None:
            with pytest.raises(RunNotFoundError):
                await rebuild_run(self.store.server, self.durations, run_id)
            return
        damage(self.admin, self.store.keys, run_id, step.damage)
        await rebuild_run(self.store.server, self.durations, run_id)
        self.model.rebuild(run_id)
        self.compare((run_id,))
        assert (await self.store.audit(run_id)).problems == ()

    async def _claim(self, step: Claim) -> None:
        targets = list(step.targets)
        tokens = [f"claim-{next(self._tokens)}" for _ in range(step.count)]
        order = {target: self.partition.queue(target) for target in targets}
        assert {target: set(ids) for target, ids in order.items()} == {
            target: self.model.queues[target] for target in targets
        }
        lease_ms = LOST_MS if step.lost else HELD_MS
        answer = await self._script(
            "claim",
            ["w1", lease_ms, FEED_MAX, step.count, len(targets), *targets, *tokens],
            feed=True,
        )
        assert answer == self.model.claim("w1", targets, tokens, order, lost=step.lost)
        self.compare(RUN_IDS)

    async def _beat(self, step: Beat) -> None:
        beats: list[tuple[str, str]] = []
        for run_id in RUN_IDS:
            run = self.model.run(run_id)
            held = run.claim if run is not None else None
            beats.append((run_id, held if held and not step.stale else "stale"))
        lease_ms = LOST_MS if step.lost else HELD_MS
        flat = itertools.chain.from_iterable(beats)
        answer = await self._script("heartbeat", [lease_ms, LIVE_TTL_MS, len(beats), *flat])
        assert answer == self.model.heartbeat(beats, lost=step.lost)
        self.compare(RUN_IDS)

    async def _reclaim(self) -> None:
        answer = await self._script("reclaim", [100, FEED_MAX], feed=True)
        queued, fates = answer[1::2], set(answer[2::2])
        assert (answer[0], sorted(queued)) == ("OK", sorted(self.model.due()))
        assert fates <= {"queued"}
        self.model.reclaim(queued)
        self.compare(RUN_IDS)

    async def _script(self, name: str, arguments: list[Any], *, feed: bool = False) -> list[str]:
        keys = [self.store.keys.base(0), *([self.store.keys.feed(0)] if feed else [])]
        return list(await self.store.server.script(name, keys, arguments))


def _times_aside(answer: Answer) -> Answer:
    return answer[:1] if answer[:1] == ("WAIT",) else answer


@pytest.fixture
def small_nodes(space: Space) -> Iterator[None]:
    """A stream is trimmed by whole nodes: with small ones, short journals are trimmed too."""
    name = "stream-node-max-entries"
    before: Any = space.admin.config_get(name)
    space.admin.config_set(name, NODE_ENTRIES)
    yield
    space.admin.config_set(name, before[name])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scripts_and_core_agree_on_every_sequence_of_commands(
    space: Space, small_nodes: None
) -> None:
    with asyncio.Runner() as runner:
        store, driven = space.store(), 0

        async def drive(steps: list[Step], ttl_ms: int, late_ms: int, max_events: int) -> None:
            await store.server.ready()
            space.admin.flushdb()
            twins = Twins(store, space.admin, ttl_ms=ttl_ms, late_ms=late_ms, max_events=max_events)
            for step in steps:
                await twins.take(step)
            await twins.compare_all()

        @given(
            steps=sequences,
            ttl_ms=st.sampled_from((3_600_000, 0)),
            late_ms=st.sampled_from((1_000_000, 0)),
            max_events=st.sampled_from((0, 6, 10)),
        )
        def check(steps: list[Step], ttl_ms: int, late_ms: int, max_events: int) -> None:
            nonlocal driven
            runner.run(drive(steps, ttl_ms, late_ms, max_events))
            driven += 1

        try:
            check()
        finally:
            runner.run(store.close())
        assert driven >= settings().max_examples
