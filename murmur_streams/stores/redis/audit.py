"""Reads a run's hash, journal, payloads, expiry and index rows for an audit."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.run import listing_key
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.core.rules.audit import AuditReport, audit_run
from murmur_streams.stores.redis.keys import removal_row
from murmur_streams.stores.redis.replies import clock_ms, pairs, read_entry, text, text_or_none
from murmur_streams.stores.redis.server import Server

PAGE_ENTRIES = 1_000
TRIES = 3
NO_KEY, NO_EXPIRY = -2, -1
"""Replies of PTTL that are not milliseconds."""


async def gather_audit(server: Server, run_id: str) -> AuditReport:
    """Audit one run. A run that is written to meanwhile is read again.

    Raises:
        RunNotFoundError: no such run.
    """
    for _ in range(TRIES - 1):
        # The journal is read in pages: a write between two of them looks like damage, but only
        # once.
        if (report := await _audit_once(server, run_id)).ok:
            return report
    return await _audit_once(server, run_id)


async def _audit_once(server: Server, run_id: str) -> AuditReport:
    keys = server.keys
    entries = await whole_journal(server, run_id)
    await server.locator.locate(run_id)
    of_run = keys.of_run(run_id)
    flat, given, result, checkpoint, *expiries = await server.read_all(
        ("HGETALL", keys.run(run_id)),
        ("GET", keys.input(run_id)),
        ("GET", keys.result(run_id)),
        ("GET", keys.checkpoint(run_id)),
        *(("PTTL", key) for key in of_run),
    )
    stored = pairs(flat)
    if not stored:
        raise RunNotFoundError(run_id)
    report = audit_run(
        run_id, stored, entries, text_or_none(given), text_or_none(result), text_or_none(checkpoint)
    )
    problems = [
        *report.problems,
        *_expiry_problems(of_run, expiries, stored),
        *await _row_problems(server, run_id, stored),
        *await _due_problems(server, run_id, stored),
    ]
    return replace(report, problems=tuple(problems))


async def read_journal(server: Server, run_id: str, start: str = "-") -> list[Any]:
    """Read the entries of a run from a position on, in pages; as raw replies."""
    raws: list[Any] = []
    while True:
        await server.locator.locate(run_id)
        page = await server.read(
            *("XRANGE", server.keys.journal(run_id), start, "+", "COUNT", PAGE_ENTRIES)
        )
        raws += page
        if len(page) < PAGE_ENTRIES:
            return raws
        start = f"({text(page[-1][0])}"


async def whole_journal(server: Server, run_id: str) -> list[JournalEntry]:
    """Read all entries of a run that were not trimmed."""
    entries = [read_entry(run_id, "", raw) for raw in await read_journal(server, run_id)]
    epoch = entries[0].fields.get("epoch", "") if entries else ""
    return [replace(entry, epoch=epoch) for entry in entries]


def _expiry_problems(keys: list[str], expiries: list[Any], stored: dict[str, str]) -> list[str]:
    found = {key: int(ms) for key, ms in zip(keys, expiries, strict=True) if int(ms) != NO_KEY}
    deadline = _number(stored, "expire_at") or _number(stored, "live_until")
    if stored.get("state") in TERMINAL_STATES and "expire_at" in stored:
        deadline = _number(stored, "expire_at")
    if not deadline:
        return [
            f"{key}: expires, though the run never does" for key, ms in found.items() if ms != -1
        ]
    problems = [f"{key}: has no expiry" for key, ms in found.items() if ms == NO_EXPIRY]
    spread = max(found.values()) - min(found.values())
    if not problems and spread > _SPREAD_MS:
        problems.append(f"the keys of the run expire {spread} ms apart: {found}")
    return problems


_SPREAD_MS = 1_000


async def _row_problems(server: Server, run_id: str, stored: dict[str, str]) -> list[str]:
    """Compare the rows of the indexes, the queue and the leases with the hash."""
    await server.locator.locate(run_id)
    keys, partition = server.keys, server.keys.partition(run_id)
    state, target = stored.get("state"), stored.get("target", "")
    indexes = {keys.index(partition): True, keys.index_target(target, partition): True}
    if tenant := stored.get("tenant"):
        indexes[keys.index_tenant(tenant, partition)] = True
    indexes |= {keys.index_state(each, partition): str(each) == state for each in RunState}
    waits = state == RunState.PENDING and stored.get("queued") == "1"
    is_held = state == RunState.RUNNING and bool(stored.get("claim"))
    work = {keys.queue(target, partition): waits, keys.leases(partition): is_held}
    member = listing_key(_number(stored, "created_ms"), run_id)
    scores = await server.read_all(
        *(("ZSCORE", row, member) for row in indexes), *(("ZSCORE", row, run_id) for row in work)
    )
    return [
        f"{row}: {'lacks' if wanted else 'wrongly has'} the run"
        for (row, wanted), score in zip((indexes | work).items(), scores, strict=True)
        if (score is not None) != wanted
    ]


async def _due_problems(server: Server, run_id: str, stored: dict[str, str]) -> list[str]:
    """Compare the rows that sweeps read with the due times in the hash."""
    await server.locator.locate(run_id)
    keys, partition = server.keys, server.keys.partition(run_id)
    state, created_ms = stored.get("state"), _number(stored, "created_ms")
    row = removal_row(stored.get("target", ""), created_ms, run_id, stored.get("tenant"))
    is_owned = state == RunState.RUNNING and bool(stored.get("owner"))
    # The clock last: otherwise a lease that is extended meanwhile would look too long.
    *scores, clock = await server.read_all(
        ("ZSCORE", keys.expiring(partition), row),
        ("ZSCORE", keys.overdue(partition), row),
        ("ZSCORE", keys.owners(partition), run_id),
        ("TIME",),
    )
    expiring, overdue, owners = (None if each is None else float(each) for each in scores)
    is_live, early = state not in TERMINAL_STATES, "or before"
    expire_at = 0 if is_live else _number(stored, "expire_at")
    live_until = _number(stored, "live_until") if is_live else 0
    lease_until = clock_ms(clock) + _number(stored, "owner_lease_ms")
    # A run without live_until that began to run before its deadline may still have its row.
    may_be_overdue = is_live and not live_until and bool(_number(stored, "deadline_ms"))
    found = [
        _due_problem(keys.expiring(partition), expiring, expire_at),
        # A write moves only the time in the hash, and the owner's lease only the row.
        "" if may_be_overdue else _due_problem(keys.overdue(partition), overdue, live_until, early),
        _due_problem(keys.owners(partition), owners, lease_until if is_owned else 0, early),
    ]
    return [
        f"{name}: {stored[name]!r} is not a number" for name in _DUE if _is_malformed(stored, name)
    ] + [problem for problem in found if problem]


_DUE = ("expire_at", "live_until", "owner_lease_ms")


def _due_problem(row: str, score: float | None, due: int, early: str = "") -> str:
    """Describe what is wrong with the run's score in one row; ``due`` 0: it may not be there."""
    if score is None:
        return f"{row}: lacks the run" if due else ""
    if not due:
        return f"{row}: wrongly has the run"
    if score == due or (early and score < due):
        return ""
    return f"{row}: has the run at {score:.0f}, the hash says {f'{due} {early}'.strip()}"


def _is_malformed(stored: dict[str, str], name: str) -> bool:
    return not re.fullmatch("[0-9]*", stored.get(name, ""), re.ASCII)


def _number(stored: dict[str, str], name: str) -> int:
    """A number of the hash; 0 if it is not a number, which has a problem of its own."""
    return 0 if _is_malformed(stored, name) else int(stored.get(name) or 0)
