"""The queue's calls as most tests need them: with one target, and only what they look at."""

from __future__ import annotations

from collections.abc import Sequence

from murmur_streams.core.model.work import Beat, Claim, NoticeKind, TargetRule
from murmur_streams.stores.protocol import WorkQueue

TENDER = "tender"


async def take(queue: WorkQueue, worker: str, count: int, *targets: str) -> list[Claim]:
    """Claim runs of these targets, ``work`` when none is named, as long as there may be some."""
    rules = [TargetRule(target) for target in targets or ("work",)]
    claimed = await queue.claim(worker, rules, count)
    while not claimed.claims and claimed.next_due_seconds == 0:
        claimed = await queue.claim(worker, rules, count)
    return claimed.claims


async def over(queue: WorkQueue, claims: Sequence[Claim]) -> list[Claim]:
    """Send one heartbeat for each; the claims that are over."""
    notices = await queue.heartbeat([Beat(claim) for claim in claims])
    assert all(each.kind is NoticeKind.LOST for each in notices)
    return [each.claim for each in notices]


async def hand_on(queue: WorkQueue, worker: str = TENDER) -> list[str]:
    """Tend once, now; the runs that were queued again."""
    return (await queue.tend(worker, ["work"], 0.001)).requeued
