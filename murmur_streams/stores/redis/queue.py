"""The queue for workers: claim, heartbeat, housekeeping, and waiting for wake-up tokens."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Sequence

from murmur_streams.core.model import work
from murmur_streams.core.model.commands import Release
from murmur_streams.core.model.errors import LeaseLostError, RunNotFoundError
from murmur_streams.core.rules.executions import check_answer
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.protocol import WorkQueue
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.claims import Claims, log_damaged
from murmur_streams.stores.redis.connection.failures import UnconfirmedError
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.hints import Hints
from murmur_streams.stores.redis.replies import read_answer, read_message, text
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.side_by_side import PATIENCE_SECONDS, SideBySide
from murmur_streams.stores.redis.workers import WakeStreams, judge_read

logger = logging.getLogger("murmur_streams.queue")

HEARTBEAT_PAGE = 100
TEND_PAGE = 20
CONTROL_PAGE = 100
SCRUB_PAGES = 20
"""The most pages of 50 runs a call: a lost queue is restored in little time."""
FIRST_CONTROL = "0-0"


class Queue(WorkQueue):
    """The waiting work of one store, for workers.

    Args:
        server: holds the runs.
        calls: for releases.
        durations: the store's.
        lease_seconds: how long a claim holds without a heartbeat, by the server's clock.
    """

    def __init__(
        self, server: Server, calls: Calls, durations: Durations, lease_seconds: float
    ) -> None:
        self._server = server
        self._keys = server.keys
        self._calls = calls
        self._durations = durations
        self._lease_ms = round(lease_seconds * 1000)
        self._scrubbed: dict[int, str] = {}
        """Partition -> cursor of the comparison of its runs with queues and leases."""
        self._claims = Claims(server, durations, self._lease_ms, self.release)
        self._bell: Bell | None = None
        server.key_space.when_changed.append(self._look_again)
        self._woken: list[int] = []
        """Partitions of the last wake-up tokens: they are claimed from first."""
        self._wake = WakeStreams(server)
        self._hints = Hints(server) if server.is_cluster else None
        patience = PATIENCE_SECONDS if server.is_cluster else None
        self._beating = SideBySide[list[tuple[str, str]]](patience)
        self._tending = SideBySide[list[tuple[str, str]]](patience)

    async def prepare(self, targets: Sequence[str]) -> None:
        await self._server.check_worker()
        if self._hints is None:
            await self._wake.create(targets)

    async def claim(
        self, worker: str, targets: Sequence[work.TargetRule], count: int, host: str = ""
    ) -> work.Claimed:
        # In random order, so that a partition does not wait behind a full one for ever.
        partitions = [*self._keys.all_partitions]
        random.shuffle(partitions)
        woken, self._woken = self._woken, []
        partitions = [*woken, *(each for each in partitions if each not in woken)]
        return await self._claims.claim(partitions, worker, targets, count, host)

    def _look_again(self) -> None:
        """End the wait under way: it does not know the partitions that a raise has added."""
        if self._bell is not None:
            self._bell.ring()

    async def heartbeat(self, beats: Sequence[work.Beat]) -> list[work.ClaimNotice]:
        await self._server.locator.locate(*(beat.claim.run_id for beat in beats))
        by_partition: dict[int, list[work.Beat]] = {}
        for beat in beats:
            partition = self._keys.partition(beat.claim.run_id)
            by_partition.setdefault(partition, []).append(beat)
        parts = await self._beating.gather(
            {
                partition: functools.partial(self._beat_all, held, partition)
                for partition, held in by_partition.items()
            }
        )
        said = {token: what for part in parts for token, what in part}
        return [
            work.ClaimNotice(beat.claim, work.NoticeKind(said[beat.claim.token]))
            for beat in beats
            if beat.claim.token in said
        ]

    async def _beat_all(self, beats: Sequence[work.Beat], partition: int) -> list[tuple[str, str]]:
        pages = [
            self._beat(beats[first : first + HEARTBEAT_PAGE], partition)
            for first in range(0, len(beats), HEARTBEAT_PAGE)
        ]
        return [notice for page in await asyncio.gather(*pages) for notice in page]

    async def _beat(self, beats: Sequence[work.Beat], partition: int) -> list[tuple[str, str]]:
        durations = self._durations
        arguments: list[str | int] = []
        for beat in beats:
            silent_ms = round((beat.silent_after_seconds or 0) * 1000)
            arguments += (beat.claim.run_id, beat.claim.token, silent_ms)
        bounds = (self._lease_ms, durations.live_ttl_ms, durations.feed_max_entries)
        answer = await self._server.partition_script(
            "heartbeat", partition, *bounds, len(beats), *arguments
        )
        return list(zip(answer[1::2], answer[2::2], strict=True))

    async def tend(
        self, worker: str, targets: Sequence[str], interval_seconds: float
    ) -> work.Housekeeping:
        # The script also compares the next thousand runs with the queues and leases, and restores
        # the rows that were lost there.
        interval_ms = round(interval_seconds * 1000)
        parts = await self._tending.gather(
            {
                partition: functools.partial(self._tend, worker, targets, interval_ms, partition)
                for partition in self._keys.all_partitions
            }
        )
        fates = [fate for part in parts for fate in part]
        for run_id, fate in fates:
            if fate == "damaged":
                log_damaged(run_id)
            elif fate == "wrong_type":
                log_wrong_type(run_id)
        return work.Housekeeping(
            [run_id for run_id, fate in fates if fate == "queued"],
            [run_id for run_id, fate in fates if fate == "ended"],
        )

    async def _tend(
        self, worker: str, targets: Sequence[str], interval_ms: int, partition: int
    ) -> list[tuple[str, str]]:
        durations, fates, pages = self._durations, list[tuple[str, str]](), 0
        while True:
            answer = await self._server.partition_script(
                *("tend", partition, worker, max(1, interval_ms), self._lease_ms),
                *(durations.feed_max_entries, durations.ttl_ms, TEND_PAGE),
                *(self._scrubbed.get(partition, ""), *targets),
            )
            if answer[0] != "OK":
                return fates
            self._scrubbed[partition] = answer[2]
            fates += zip(answer[3::2], answer[4::2], strict=True)
            pages += 1
            is_walking = not answer[2].endswith(" ") and pages < SCRUB_PAGES
            if answer[1] == "0" and not is_walking:
                return fates

    async def release(self, claim: work.Claim, reason: str) -> None:
        try:
            command = Release(reason, claim.token)
            check_answer(await self._calls.execute(claim.run_id, command), claim.run_id)
        except (LeaseLostError, RunNotFoundError):
            logger.debug("run %s was not released: its claim is over", claim.run_id)

    async def recover(self, attempt: int) -> None:
        await self._server.recover(attempt)

    async def wait(self, targets: Sequence[str], seconds: float) -> None:
        # One call may take a token of every target. Runs that this worker does not claim
        # afterwards are left to the workers that ``tend`` wakes.
        await self._server.ready()
        waits = self._hints or self._wake
        self._woken = await waits.wait(targets, seconds)

    async def wait_and_claim(
        self,
        worker: str,
        targets: Sequence[work.TargetRule],
        count: int,
        host: str = "",
        *,
        seconds: float,
        bell: Bell,
    ) -> work.Claimed:
        # The claim is sent behind the read that waits for a token, on the same connection: the
        # server executes it in the moment in which the read ends. With several partitions the
        # token's partition is not known before.
        again = work.Claimed([], 0.0)
        await self._server.ready()
        self._bell = bell
        is_known = self._keys.partitions == 1 and self._hints is None
        if not is_known or not self._server.can_half_close:
            return await self._wait_then_claim(worker, targets, count, host, seconds, bell)
        names, (partition,) = [rule.name for rule in targets], self._keys.all_partitions
        arguments = self._claims.arguments(worker, targets, count, host)
        keys = self._keys.base_and_feed(partition)
        claim = self._server.nodes.script("claim", keys, arguments)
        wait = await self._wake.command(names, seconds)
        try:
            replies = await self._server.blocking_all(wait, claim, seconds=seconds, bell=bell)
        except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
            await judge_read(self._server, error)
            return again
        if replies is None:
            return again
        woken, claimed = replies
        # First of all the claims: these runs are ours now, whatever became of the wait.
        try:
            answer = () if isinstance(claimed, Exception) else read_answer(claimed)
        except UnconfirmedError:
            answer = ()
        if not answer:
            # The script is not loaded, or it refused the call; ``claim`` mends or raises that.
            return again
        found = self._claims.read(answer, partition)
        if not found.claims and isinstance(woken, Exception):
            await self._wake.mend(woken, names)
        return found

    async def _wait_then_claim(
        self,
        worker: str,
        targets: Sequence[work.TargetRule],
        count: int,
        host: str,
        seconds: float,
        bell: Bell,
    ) -> work.Claimed:
        await bell.ends(self.wait([rule.name for rule in targets], seconds))
        woken, self._woken = self._woken, []
        if self._hints is not None and self._hints.hears_all and not bell.is_rung:
            # What waits anywhere else has sent a hint, or is reported when the worker says again
            # that it is idle.
            woken = [*dict.fromkeys([*woken, *self._claims.due_partitions()])]
        elif not woken:
            return work.Claimed([], 0.0)
        return await self._claims.claim(woken, worker, targets, count, host)

    async def control(
        self, worker: str, after: str, seconds: float
    ) -> tuple[list[work.ControlMessage], str]:
        # A broken connection yields no messages. One position for each partition is in ``after``.
        if self._hints is not None:
            await self._server.ready()
            return await self._hints.control(worker, seconds), after
        keys = [self._keys.control(worker, each) for each in self._keys.all_partitions]
        read = after.split(",") if after else []
        # Those of partitions that a raise has added are missing.
        positions = {
            key: read[at] if at < len(read) else FIRST_CONTROL for at, key in enumerate(keys)
        }
        messages: list[work.ControlMessage] = []
        try:
            reply = await self._server.read_streams(positions, CONTROL_PAGE, seconds)
        except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
            await judge_read(self._server, error)
            return [], after
        for key, entries in reply or ():
            positions[text(key)] = text(entries[-1][0])
            messages += (read_message(raw) for _, raw in entries)
        return messages, ",".join(positions.values())


def log_wrong_type(key: str) -> None:
    """Log that housekeeping found a key which has another type than the key table gives it."""
    logger.error(
        "the key %s has another type than the key table gives it, so its part of the housekeeping "
        "was left out; `redis-cli TYPE KEY` names the type. Delete the key or move it away, then "
        "`murmur-streams rebuild` writes the rows of a run again",
        key,
    )
