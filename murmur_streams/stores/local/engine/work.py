"""The work of a local store as workers see it: the queue, housekeeping, the list of workers."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from murmur_streams.core.model import work
from murmur_streams.core.model.commands import NoteSilence, Reclaim, Release
from murmur_streams.core.model.errors import InvalidInputError, RunDamagedError
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.bell import Bell
from murmur_streams.stores.local.engine.access import Access
from murmur_streams.stores.local.engine.claiming import Claiming, Signals, idle_until
from murmur_streams.stores.local.engine.database import Due, ItemRange, Reader, Space
from murmur_streams.stores.local.engine.transaction import Transaction
from murmur_streams.stores.protocol import WorkerList, WorkQueue
from murmur_streams.stores.timing import pause_before_retry

logger = logging.getLogger("murmur_streams.queue")

HOUSEKEEPING_PAGE = 20
MOST_WORKERS = 10_000
_HOLDER = "holder"


@dataclass(eq=False)
class LocalQueue(WorkQueue):
    """The waiting work of one store, for workers."""

    access: Access
    """To the store's database."""
    signals: Signals
    """Wake this process's workers."""
    clock: Callable[[], int]
    """Milliseconds of Unix time."""
    lease_ms: int
    """How long a claim holds without a heartbeat, by this machine's clock."""
    _is_idle: bool = False
    """Whether the last claim found nothing: then the next one looks before it writes."""

    async def prepare(self, targets: Sequence[str]) -> None:
        del targets
        await self.access.open()

    async def claim(
        self, worker: str, targets: Sequence[work.TargetRule], count: int, host: str = ""
    ) -> work.Claimed:
        if self._is_idle:
            now_ms = self.clock()
            idle = await self.access.read(lambda reader: idle_until(reader, targets, now_ms))
            if idle is not None:
                return idle
        # Before the claim: a cancel that comes right after it finds the worker's messages.
        self.signals.listen(worker)
        tokens = [secrets.token_hex(8) for _ in range(count)]

        def serve(group: Transaction) -> tuple[work.Claimed, list[tuple[str, str]]]:
            claiming = Claiming(group, worker, host or None, tokens, self.lease_ms)
            return claiming.serve(targets), claiming.refused

        claimed, refused = await self.access.write_alone(serve)
        for run_id, reason in refused:
            logger.info("run %s was not started: %s", run_id, reason)
        self._is_idle = not claimed.claims
        return claimed

    async def heartbeat(self, beats: Sequence[work.Beat]) -> list[work.ClaimNotice]:
        def beat(group: Transaction) -> list[work.ClaimNotice]:
            found = [(each.claim, _notice(group, each, self.lease_ms)) for each in beats]
            return [work.ClaimNotice(claim, kind) for claim, kind in found if kind is not None]

        return await self.access.write(beat)

    async def tend(
        self, worker: str, targets: Sequence[str], interval_seconds: float
    ) -> work.Housekeeping:
        del targets
        interval_ms = round(interval_seconds * 1000)
        done, has_more = work.Housekeeping([], []), True
        while has_more:
            page, has_more = await self.access.write_alone(
                lambda group: _do_housekeeping(group, worker, interval_ms)
            )
            done = work.Housekeeping(done.requeued + page.requeued, done.ended + page.ended)
        return done

    async def release(self, claim: work.Claim, reason: str) -> None:
        command = Release(reason, claim.token)
        answer = await self.access.write(lambda group: group.perform(claim.run_id, command).answer)
        if answer[0] != "OK":
            logger.debug("run %s was not handed back: its claim is over", claim.run_id)

    async def recover(self, attempt: int) -> None:
        await pause_before_retry(attempt)

    async def wait(self, targets: Sequence[str], seconds: float) -> None:
        await self.signals.queued(targets, seconds)

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
        del worker, count, host
        await bell.ends(self.wait([rule.name for rule in targets], seconds))
        return work.Claimed([], 0.0)

    async def control(
        self, worker: str, after: str, seconds: float
    ) -> tuple[list[work.ControlMessage], str]:
        messages, n = await self.signals.messages(worker, int(after or 0), seconds)
        if not messages:
            # The signals of a closed store return at once; this raises StoreClosedError.
            await self.access.open()
        return messages, str(n)


@dataclass(eq=False)
class LocalWorkers(WorkerList):
    """The workers that report themselves; no execution depends on it."""

    access: Access
    signals: Signals
    clock: Callable[[], int]
    listed_ms: int
    """How long a worker is listed after its last heartbeat."""

    async def beat(self, info: work.WorkerInfo) -> None:
        if not info.id:
            raise InvalidInputError("a worker needs an id")
        runs = [*info.runs][: work.MAX_REPORTED_RUNS]
        reported = asdict(replace(info, targets=[*info.targets], runs=runs))

        def write(group: Transaction) -> None:
            now_ms = group.now_ms
            for worker_id, row in _worker_rows(group.database):
                if row["until_ms"] <= now_ms:
                    group.put(Space.WORKERS, worker_id, None)
            row = {**reported, "last_beat_ms": now_ms, "until_ms": now_ms + self.listed_ms}
            group.put(Space.WORKERS, info.id, json.dumps(row))

        await self.access.write(write)

    async def remove(self, worker_id: str) -> None:
        await self.access.write(lambda group: group.put(Space.WORKERS, worker_id, None))
        self.signals.forget(worker_id)

    async def list(self) -> list[work.WorkerInfo]:
        rows, now_ms = await self.access.read(_worker_rows), self.clock()
        return [work.WorkerInfo(**row) for _, row in rows if row.pop("until_ms") > now_ms]


def _worker_rows(reader: Reader) -> list[tuple[str, dict[str, Any]]]:
    items = reader.items(ItemRange(Space.WORKERS, MOST_WORKERS))
    return [(worker_id, json.loads(text)) for worker_id, text in items]


def _notice(group: Transaction, beat: work.Beat, lease_ms: int) -> work.NoticeKind | None:
    """Extend the lease of a claim; the notice about it, if there is one."""
    claim = beat.claim
    stored = group.stored(claim.run_id)
    if stored is None or stored.run.claim != claim.token:
        return work.NoticeKind.LOST
    group.lease(claim.run_id, group.now_ms + lease_ms)
    if stored.run.cancel_requested is not None:
        return work.NoticeKind.CANCEL
    silent_ms = round((beat.silent_after_seconds or 0) * 1000)
    if not silent_ms:
        return None
    noted = group.perform(claim.run_id, NoteSilence(claim.token, silent_ms))
    return work.NoticeKind.SILENT if noted.answer[0] == "OK" else None


def _do_housekeeping(
    group: Transaction, worker: str, interval_ms: int
) -> tuple[work.Housekeeping, bool]:
    """Requeue lost runs and end overdue ones, a page of each; whether there may be more.

    One worker at a time does it: while another one has its turn, nothing is done.
    """
    if not _is_our_turn(group, worker, interval_ms):
        return work.Housekeeping([], []), False
    lost = group.database.due(Due.LEASE, group.now_ms, HOUSEKEEPING_PAGE + len(group.known.damaged))
    requeued = [run_id for run_id in lost if _requeue(group, run_id)]
    count = group.do_housekeeping(HOUSEKEEPING_PAGE)
    ended = {
        each.run_id: None
        for each in group.written
        if each.after is not None
        and each.after.run.state.is_terminal
        and not (each.before is not None and each.before.run.state.is_terminal)
    }
    # A page of damaged runs that cannot be changed must not be read again and again.
    has_more = max(len(lost), count) >= HOUSEKEEPING_PAGE and bool(group.written)
    return work.Housekeeping(requeued, [*ended]), has_more


def _requeue(group: Transaction, run_id: str) -> bool:
    try:
        return group.perform(run_id, Reclaim()).answer == ("OK", str(RunState.PENDING))
    except RunDamagedError:
        # The other runs of the page must not wait for its repair.
        return False


def _is_our_turn(group: Transaction, worker: str, interval_ms: int) -> bool:
    row = group.database.item(Space.HOUSEKEEPING, _HOLDER)
    now_ms = group.now_ms
    if row is not None:
        holder, until_ms = json.loads(row)
        # After a clock was set back, a turn could last for hours: one that long does not count.
        if now_ms < until_ms <= now_ms + 2 * interval_ms:
            return holder == worker
    group.put(Space.HOUSEKEEPING, _HOLDER, json.dumps([worker, now_ms + max(1, interval_ms)]))
    return True
