"""The queue of a local store as a worker sees it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence

from murmur_streams.core.model.commands import Release
from murmur_streams.core.model.work import (
    Beat,
    Claim,
    Claimed,
    ClaimNotice,
    ControlMessage,
    Housekeeping,
    TargetRule,
)
from murmur_streams.stores.local.engine.access import Access
from murmur_streams.stores.local.engine.claiming import Claiming, idle_until
from murmur_streams.stores.local.engine.housekeeping import beat, tend
from murmur_streams.stores.local.engine.signals import Signals
from murmur_streams.stores.local.engine.transaction import Transaction
from murmur_streams.stores.timing import pause_before_retry
from murmur_streams.stores.work_store import WorkQueue

logger = logging.getLogger("murmur_streams.queue")


class LocalQueue(WorkQueue):
    """The waiting work of one store, for workers.

    Args:
        access: to the store's database.
        signals: wake this process's workers.
        clock: milliseconds of Unix time.
        lease_seconds: how long a claim holds without a heartbeat, by this machine's clock.
    """

    def __init__(
        self, access: Access, signals: Signals, clock: Callable[[], int], lease_seconds: float
    ) -> None:
        self._access = access
        self._signals = signals
        self._clock = clock
        self._lease_ms = round(lease_seconds * 1000)
        self._is_idle = False
        """Whether the last claim found nothing: then the next one looks before it writes."""

    async def prepare(self, targets: Sequence[str]) -> None:
        del targets
        await self._access.open()

    async def claim(
        self, worker: str, targets: Sequence[TargetRule], count: int, host: str = ""
    ) -> Claimed:
        if self._is_idle:
            now_ms = self._clock()
            idle = await self._access.read(lambda reader: idle_until(reader, targets, now_ms))
            if idle is not None:
                return idle
        # Before the claim: a cancel that comes right after it finds the worker's messages.
        self._signals.listen(worker)
        tokens = [secrets.token_hex(8) for _ in range(count)]

        def serve(group: Transaction) -> tuple[Claimed, list[tuple[str, str]]]:
            claiming = Claiming(group, worker, host or None, tokens, self._lease_ms)
            return claiming.serve(targets), claiming.refused

        claimed, refused = await self._access.write_alone(serve)
        for run_id, reason in refused:
            logger.info("run %s was not started: %s", run_id, reason)
        self._is_idle = not claimed.claims
        return claimed

    async def heartbeat(self, beats: Sequence[Beat]) -> list[ClaimNotice]:
        said = await self._access.write(lambda group: beat(group, beats, self._lease_ms))
        return [
            ClaimNotice(each.claim, kind)
            for each, kind in zip(beats, said, strict=True)
            if kind is not None
        ]

    async def tend(
        self, worker: str, targets: Sequence[str], interval_seconds: float
    ) -> Housekeeping:
        del targets
        interval_ms = round(interval_seconds * 1000)
        requeued, ended, is_over = list[str](), list[str](), False
        while not is_over:
            tended, has_more = await self._access.write_alone(
                lambda group: tend(group, worker, interval_ms)
            )
            requeued += tended.requeued
            ended += tended.ended
            is_over = not has_more
        return Housekeeping(requeued, ended)

    async def release(self, claim: Claim, reason: str) -> None:
        command = Release(reason, claim.token)
        answer = await self._access.write(lambda group: group.perform(claim.run_id, command).answer)
        if answer[0] != "OK":
            logger.debug("run %s was not handed back: its claim is over", claim.run_id)

    async def recover(self, attempt: int) -> None:
        await pause_before_retry(attempt)

    async def wait(self, targets: Sequence[str], seconds: float) -> None:
        await self._signals.queued(targets, seconds)

    async def control(
        self, worker: str, after: str, seconds: float
    ) -> tuple[list[ControlMessage], str]:
        messages, n = await self._signals.messages(worker, int(after or 0), seconds)
        if not messages:
            # The signals of a closed store return at once; this raises StoreClosedError.
            await self._access.open()
        return list(messages), str(n)
