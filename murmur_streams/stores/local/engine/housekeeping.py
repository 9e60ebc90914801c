"""Heartbeats, and housekeeping for the whole store: both inside a group of writes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from murmur_streams.core.model.commands import NoteSilence, Reclaim
from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import Beat, Housekeeping, NoticeKind
from murmur_streams.stores.local.engine.database import Due, Space
from murmur_streams.stores.local.engine.transaction import Transaction

TEND_PAGE = 20
_HOLDER = "holder"


def beat(group: Transaction, beats: Sequence[Beat], lease_ms: int) -> list[NoticeKind | None]:
    """Extend the leases of claims; the notice about each, if there is one."""
    return [_beat(group, each, lease_ms) for each in beats]


def _beat(group: Transaction, beat: Beat, lease_ms: int) -> NoticeKind | None:
    claim = beat.claim
    stored = group.stored(claim.run_id)
    if stored is None or stored.run.claim != claim.token:
        return NoticeKind.LOST
    group.lease(claim.run_id, group.now_ms + lease_ms)
    if stored.run.cancel_requested is not None:
        return NoticeKind.CANCEL
    silent_ms = round((beat.silent_after_seconds or 0) * 1000)
    if not silent_ms:
        return None
    noted = group.perform(claim.run_id, NoteSilence(claim.token, silent_ms))
    return NoticeKind.SILENT if noted.answer[0] == "OK" else None


def tend(group: Transaction, worker: str, interval_ms: int) -> tuple[Housekeeping, bool]:
    """Requeue lost runs and end overdue ones, a page of each; whether there may be more.

    One worker at a time does it: while another one has its turn, nothing is done.
    """
    if not _is_our_turn(group, worker, interval_ms):
        return Housekeeping([], []), False
    lost = group.database.due(Due.LEASE, group.now_ms, TEND_PAGE + len(group.damaged))
    requeued = [run_id for run_id in lost if _hand_on(group, run_id)]
    swept = group.sweep(TEND_PAGE)
    tended = Housekeeping(requeued, _ended(group))
    # A page of damaged runs that cannot be changed must not be read again and again.
    has_more = max(len(lost), swept) >= TEND_PAGE and bool(group.written)
    return tended, has_more


def _hand_on(group: Transaction, run_id: str) -> bool:
    try:
        return group.perform(run_id, Reclaim()).answer == ("OK", str(RunState.PENDING))
    except RunDamagedError:
        # The other runs of the page must not wait for its repair.
        return False


def _is_our_turn(group: Transaction, worker: str, interval_ms: int) -> bool:
    row = group.database.item(Space.SWEEPER, _HOLDER)
    now_ms = group.now_ms
    if row is not None:
        holder, until_ms = json.loads(row)
        # After a clock was set back, a turn could last for hours: one that long does not count.
        if now_ms < until_ms <= now_ms + 2 * interval_ms:
            return holder == worker
    group.put(Space.SWEEPER, _HOLDER, json.dumps([worker, now_ms + max(1, interval_ms)]))
    return True


def _ended(group: Transaction) -> list[str]:
    return list(
        dict.fromkeys(
            each.run_id
            for each in group.written
            if each.after is not None
            and each.after.run.state.is_terminal
            and not (each.before is not None and each.before.run.state.is_terminal)
        )
    )
