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
from murmur_streams.stores.pauses import pause_before_retry

logger = logging.getLogger("murmur_streams.queue")


class Queue:
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
        """Open the file; what a target's queue needs comes with its first run."""
        del targets
        await self._access.open()

    async def claim(
        self, worker: str, targets: Sequence[TargetRule], count: int, host: str = ""
    ) -> Claimed:
        """Take up to ``count`` waiting runs and their leases, the first of each target first.

        A caller that is cancelled leaves the runs claimed by nobody who knows; they are handed on
        when their leases run out. Runs that may not be started any more end on the way.

        Args:
            worker: a name that no other process has.
            targets: in the order in which they are asked; paused ones are passed over.
            count: how many at most.
            host: where the worker runs, for the journal.
        """
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
        """Move the leases on; what there is to say of the claims."""
        said = await self._access.write(lambda group: beat(group, beats, self._lease_ms))
        return [
            ClaimNotice(each.claim, word)
            for each, word in zip(beats, said, strict=True)
            if word is not None
        ]

    async def tend(
        self, worker: str, targets: Sequence[str], interval_seconds: float
    ) -> Housekeeping:
        """Do for all what nobody does for himself; of all workers one at a time does it.

        Runs whose lease has run out wait again, overdue ones end, expired ones go.

        Args:
            worker: who calls, by the name it claims with.
            targets: which it executes; whoever waits for work is woken by every run that is queued.
            interval_seconds: how long after a call of this worker no other one's does anything.
        """
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
        """Hand a claimed run back; nothing happens when the claim is over or the run is gone."""
        command = Release(reason, claim.token)
        answer = await self._access.write(lambda group: group.perform(claim.run_id, command).answer)
        if answer[0] != "OK":
            logger.debug("run %s was not handed back: its claim is over", claim.run_id)

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, to two seconds."""
        await pause_before_retry(attempt)

    async def wait(self, targets: Sequence[str], seconds: float) -> None:
        """Wait until a run is queued, at most ``seconds``; returning early is harmless.

        Runs of this process wake it at once, those of others when the store has looked.
        """
        await self._signals.queued(targets, seconds)

    async def control(
        self, worker: str, after: str, seconds: float
    ) -> tuple[list[ControlMessage], str]:
        """Wait for what a worker is woken with, at most ``seconds``, by this process.

        What other processes ask for is told by the next heartbeat.

        Args:
            worker: by the name it claims with.
            after: "" for all there is, then what the call before returned.
            seconds: how long to wait.

        Returns:
            The messages, and where to go on.

        Raises:
            StoreClosedError: nothing comes any more.
        """
        messages, n = await self._signals.messages(worker, int(after or 0), seconds)
        if not messages:
            # The signals of a closed store return at once; this raises StoreClosedError.
            await self._access.open()
        return list(messages), str(n)
