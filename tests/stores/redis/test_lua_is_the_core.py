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

from murmur_streams.core.model.commands import Command, Start
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.replies import read_groups
from murmur_streams.stores.redis.restoring import rebuild_run
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.writer import Writer
from murmur_streams.stores.redis.writes import NumberedCall, WaitingRuns, WaitingWrite, answers_to
from tests.key_audit import audit_keys
from tests.servers import Space
from tests.stores.redis.damage import damage
from tests.stores.redis.hand import HandWriter, calls_by_hand, expect_many
from tests.stores.redis.model import Model
from tests.stores.redis.partition import (
    PARTITION,
    PARTITIONS,
    Partition,
    expected_dump,
    model_as_compared,
    untimed_answers,
)
from tests.stores.redis.steps import (
    RUN_IDS,
    TARGETS,
    Beat,
    Claim,
    Rebuild,
    Send,
    Step,
    Tick,
    sequences,
)

LIVE_TTL_MS = 3_600_000
FEED_MAX = 100_000
LOST_MS = -1_000
HELD_MS = 1_000_000
NODE_ENTRIES = 3
LEFT = {"deadline_ms", "deadline_left_ms"}
"""The fields of a claim's answer that depend on the clock."""


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
        self.partition = Partition(admin, store._keys)
        durations = Durations(ttl_ms, LIVE_TTL_MS, late_ms, FEED_MAX, max_events)
        self.durations = durations
        clock = lambda: self.model.caller_ms  # noqa: E731
        self.writer = Writer(store._server, durations, clock)
        self.writer._lanes = store._writer._lanes
        self.calls = Calls(self.writer, durations)
        self.hand = HandWriter(store, durations, clock)
        self.hand_calls = calls_by_hand(self.hand, durations)
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
            case "tend":
                await self._tend()
            case "heal":
                await self._heal()
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
                remaining = run.version - oldest + 1
                assert remaining >= min(run.version, self.max_events or run.version)
                if run.snapshot == run.version:
                    assert remaining < self.max_events + NODE_ENTRIES

    async def compare_all(self) -> None:
        """Every key there is, its type and expiry, and the store's own audit."""
        self.compare(RUN_IDS)
        keys = self.store._keys
        wanted = expected_dump(self.model, self.partition, keys, ttl_ms=self.ttl_ms)
        assert self.partition.dump() == wanted
        assert audit_keys(self.admin, keys.prefix) == []
        for run_id in self.model.lives:
            assert (await self.store.audit(run_id)).problems == ()

    async def _send(self, step: Send) -> None:
        commands = [part.build(self.model.run(part.run_id)) for part in step.parts]
        call, groups = self._planned(step, commands)
        writer = self.writer._routes.at(PARTITION)._calls
        expect_many(self.writer, PARTITION)
        if step.ahead is None:
            calls, producer, n = self.calls, writer.producer, writer.n + 1
        else:
            record = self.model.records.get(step.producer)
            last = 2 if record is None else record.n
            calls, producer, n = self.hand_calls, step.producer, last + step.ahead
            self.hand.producer, self.hand.n = producer, n
        answers = await asyncio.gather(
            *(
                calls.execute(part.run_id, command)
                for part, command in zip(step.parts, commands, strict=True)
            ),
        )
        wanted = self.model.execute(groups, producer, n)
        if step.ahead is not None:
            assert untimed_answers(self.hand.reply) == wanted
        else:
            # However many there are, they left in one call.
            assert writer.n == n
            texts = answers_to(call, [text.encode() for text in wanted[1:]])
            order = [write.size for write in call.writes]
            found = [answers[index] for index in order]
            assert [each[:1] if each[0] == "WAIT" else each for each in found] == texts
        self.compare(tuple({part.run_id for part in step.parts}))

    def _planned(
        self, step: Send, commands: list[Command]
    ) -> tuple[NumberedCall, list[tuple[str, list[Command]]]]:
        """How the writer forms the call; the size of each write is its part's index."""
        waiting, future = WaitingRuns(), asyncio.get_running_loop().create_future()
        for index, part in enumerate(step.parts):
            name = part.name
            waiting.add(WaitingWrite(name, part.run_id, [], 0, index, 0.0, future))
        call = NumberedCall(0, waiting.take(), 0, 0)
        groups = [
            (group.writes[0].run_id, [commands[write.size] for write in group.writes])
            for group in call.groups
        ]
        return call, groups

    async def _rebuild(self, step: Rebuild) -> None:
        run_id = step.run_id
        if self.model.run(run_id) is None:
            with pytest.raises(RunNotFoundError):
                await rebuild_run(self.store._server, self.durations, run_id)
            return
        damage(self.admin, self.store._keys, run_id, step.damage)
        if step.damage == "lease gone":
            self.model.leases.pop(run_id, None)
        await rebuild_run(self.store._server, self.durations, run_id)
        self.model.rebuild(run_id)
        self.compare((run_id,))
        assert (await self.store.audit(run_id)).problems == ()

    async def _claim(self, step: Claim) -> None:
        targets = list(step.targets)
        tokens = [f"claim-{next(self._tokens)}" for _ in range(step.count)]
        queues = {target: set(self.partition.queue(target)) for target in targets}
        assert queues == {target: self.model.queues[target] for target in targets}
        order = {target: self.partition.ready(target) for target in targets}
        lease_ms = LOST_MS if step.lost else HELD_MS
        rules = itertools.chain.from_iterable((target, step.max_attempts) for target in targets)
        own = ["w1", "host", lease_ms, FEED_MAX, self.ttl_ms, step.count, len(targets)]
        own.append(str(PARTITIONS))
        answer = await self._script("claim", [*own, *rules, *tokens], feed=True)
        start = Start("w1", "", "host", step.max_attempts)
        wanted = self.model.claim(start, targets, tokens, order, lost=step.lost)
        assert [_in_any_time(each) for each in read_groups(tuple(answer[3:]))] == [
            _in_any_time(each) for each in wanted
        ]
        delayed = sum(
            len(self.partition.queue(each)) > len(self.partition.ready(each)) for each in targets
        )
        assert (answer[:2], int(answer[2]) > 0) == (["OK", "0"], delayed > 0)
        self.compare(RUN_IDS)

    async def _beat(self, step: Beat) -> None:
        beats: list[tuple[str, str]] = []
        for run_id in RUN_IDS:
            run = self.model.run(run_id)
            held = run.claim if run is not None else None
            beats.append((run_id, held if held and not step.stale else "stale"))
        lease_ms = LOST_MS if step.lost else HELD_MS
        flat = itertools.chain.from_iterable((*beat, step.silent_ms) for beat in beats)
        own = [lease_ms, LIVE_TTL_MS, FEED_MAX, len(beats)]
        answer = await self._script("heartbeat", [*own, *flat], feed=True)
        assert answer == self.model.heartbeat(beats, step.silent_ms, lost=step.lost)
        self.compare(RUN_IDS)

    async def _tend(self, cursor: str = "") -> str:
        self.model.sweeper = "w1"
        own = ["w1", HELD_MS, HELD_MS, FEED_MAX, self.ttl_ms, 100, cursor]
        answer = await self._script("tend", own, feed=True)
        run_ids, fates = answer[3::2], answer[4::2]
        assert (answer[:2], sorted(run_ids)) == (["OK", "0"], sorted(self.model.due()))
        assert fates == self.model.reclaim(run_ids)
        self.compare(RUN_IDS)
        return answer[2]

    async def _heal(self) -> None:
        keys = self.store._keys
        queues = [keys.queue(target, PARTITION) for target in TARGETS]
        self.admin.delete(keys.leases(PARTITION), *queues)
        self.model.heal()
        due = {**self.model.leases}
        self.model.leases = {}
        cursor = await self._tend("pending ")
        self.model.leases = due
        assert await self._tend(cursor) == "pending "

    async def _script(self, name: str, arguments: list[Any], *, feed: bool = False) -> list[str]:
        base, fed = self.store._keys.base_and_feed(PARTITION)
        keys = [base, fed] if feed else [base]
        return list(await self.store._server.script(name, keys, arguments))


def _in_any_time(found: tuple[str, dict[str, str]]) -> tuple[str, dict[str, str]]:
    kind, fields = found
    return kind, {name: text for name, text in fields.items() if name not in LEFT}


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
@pytest.mark.fault("F31")
def test_scripts_and_core_agree_on_every_sequence_of_commands(
    space: Space, small_nodes: None
) -> None:
    """Random commands, clocks and limits: same answers, states, journals and rows."""
    with asyncio.Runner() as runner:
        store, driven = space.store(partitions=PARTITIONS), 0

        async def drive(steps: list[Step], ttl_ms: int, late_ms: int, max_events: int) -> None:
            await store._server.ready()
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
