"""The scripts and the pure core are the same rules: both get the same commands, and after each
command answers, states and journals are equal; at the end every key on the server is explained."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from murmur_streams.core.commands import Command
from murmur_streams.core.decide import Answer
from murmur_streams.stores.redis.calls import Calls, Durations
from murmur_streams.stores.redis.store import RedisRunStore
from tests.key_audit import audit_keys
from tests.servers import Space
from tests.stores.redis.hand import HandWriter, calls_by_hand
from tests.stores.redis.model import Model
from tests.stores.redis.partition import Partition, expected_dump, model_as_compared
from tests.stores.redis.steps import RUN_IDS, Beat, Claim, Send, Step, Tick, sequences

LIVE_TTL_MS = 3_600_000
FEED_MAX = 100_000
LOST_MS = -1_000
HELD_MS = 1_000_000


class Twins:
    """The server and the model, side by side."""

    def __init__(self, store: RedisRunStore, admin: Redis, *, ttl_ms: int, late_ms: int) -> None:
        self.store = store
        self.admin = admin
        self.ttl_ms = ttl_ms
        self.model = Model(late_ms, time.time_ns() // 1_000_000)
        self.partition = Partition(admin, store.keys)
        durations = Durations(ttl_ms, LIVE_TTL_MS, late_ms, FEED_MAX)
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
            case "reclaim":
                await self._reclaim()
            case "sweep":
                assert await self.store.sweep() == 0

    def compare(self, run_ids: tuple[str, ...]) -> None:
        """State and journal of these runs."""
        for run_id in run_ids:
            found = self.partition.run_as_compared(run_id)
            assert found == model_as_compared(self.model, run_id)

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
        command = step.build(self.model.run(step.run_id))
        if step.ahead is None:
            answer = await self.calls.execute(step.run_id, command, enqueue=step.enqueue)
            producer, n = self.writer._producer, self.writer._n
        else:
            answer, producer, n = await self._send_by_hand(step, step.ahead, command)
        wanted = self.model.execute(step.run_id, command, producer, n, enqueue=step.enqueue)
        assert _times_aside(answer) == _times_aside(wanted)
        self.compare((step.run_id,))

    async def _send_by_hand(
        self, step: Send, ahead: int, command: Command
    ) -> tuple[Answer, str, int]:
        last, _ = self.model.producers[step.run_id].get(step.producer, (1, ()))
        self.hand.producer, self.hand.n = step.producer, last + ahead
        answer = await self.hand_calls.execute(step.run_id, command, enqueue=step.enqueue)
        return answer, step.producer, last + ahead

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
        keys = [self.store.keys.base(), *([self.store.keys.feed()] if feed else [])]
        return list(await self.store.server.script(name, keys, arguments))


def _times_aside(answer: Answer) -> Answer:
    return answer[:1] if answer[:1] == ("WAIT",) else answer


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scripts_and_core_agree_on_every_sequence_of_commands(space: Space) -> None:
    with asyncio.Runner() as runner:
        store, driven = space.store(), 0

        async def drive(steps: list[Step], ttl_ms: int, late_ms: int) -> None:
            await store.server.ready()
            space.admin.flushdb()
            twins = Twins(store, space.admin, ttl_ms=ttl_ms, late_ms=late_ms)
            for step in steps:
                await twins.take(step)
            await twins.compare_all()

        @given(
            steps=sequences,
            ttl_ms=st.sampled_from((3_600_000, 0)),
            late_ms=st.sampled_from((1_000_000, 0)),
        )
        def check(steps: list[Step], ttl_ms: int, late_ms: int) -> None:
            nonlocal driven
            runner.run(drive(steps, ttl_ms, late_ms))
            driven += 1

        try:
            check()
        finally:
            runner.run(store.close())
        assert driven >= settings().max_examples
