"""Reads a run's hash, journal, payloads, expiry and index rows for an audit."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.core.model.pages import listing_key
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.core.rules.audit import AuditReport, audit_run
from murmur_streams.stores.redis.keys import removal_row
from murmur_streams.stores.redis.live.tail import read_entry
from murmur_streams.stores.redis.server import Server, text

PAGE_ENTRIES = 1_000
TRIES = 3
NO_KEY, NO_EXPIRY = -2, -1
"""Replies of PTTL that are not milliseconds."""


async def gather_audit(server: Server, run_id: str) -> AuditReport:
    """Audit one run. A run that is written to meanwhile is read again.

    Raises:
        RunNotFoundError: no such run.
    """
    report = await _audit_once(server, run_id)
    for _ in range(TRIES - 1):
        if report.ok:
            break
        # The journal is read in pages: a write between two of them looks like damage, but only
        # once.
        report = await _audit_once(server, run_id)
    return report


async def _audit_once(server: Server, run_id: str) -> AuditReport:
    keys = server.keys
    entries = await whole_journal(server, run_id)
    flat, given, result, checkpoint, *expiries = await server.read_all(
        ("HGETALL", keys.run(run_id)),
        ("GET", keys.input(run_id)),
        ("GET", keys.result(run_id)),
        ("GET", keys.checkpoint(run_id)),
        *(("PTTL", key) for key in keys.of_run(run_id)),
    )
    stored = {text(name): text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    if not stored:
        raise RunNotFoundError(run_id)
    report = audit_run(run_id, stored, entries, _text(given), _text(result), _text(checkpoint))
    problems = [
        *report.problems,
        *_expiry_problems(keys.of_run(run_id), expiries, stored),
        *await _index_problems(server, run_id, stored),
        *await _work_problems(server, run_id, stored),
        *await _due_problems(server, run_id, stored),
    ]
    return replace(report, problems=tuple(problems))


async def whole_journal(server: Server, run_id: str) -> list[JournalEntry]:
    """Read all entries of a run that were not trimmed."""
    journal, start = server.keys.journal(run_id), "-"
    entries: list[JournalEntry] = []
    while True:
        page = await server.read("XRANGE", journal, start, "+", "COUNT", PAGE_ENTRIES)
        for raw in page:
            entry = read_entry(run_id, "", raw)
            epoch = entries[0].epoch if entries else entry.fields.get("epoch", "")
            entries.append(replace(entry, epoch=epoch))
        if len(page) < PAGE_ENTRIES:
            return entries
        start = f"({entries[-1].id}"


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


async def _index_problems(server: Server, run_id: str, stored: dict[str, str]) -> list[str]:
    keys, partition = server.keys, server.keys.partition(run_id)
    member = listing_key(_number(stored, "created_ms"), run_id)
    state = stored.get("state")
    rows = {
        keys.index(partition): True,
        keys.index_target(stored.get("target", ""), partition): True,
    }
    if tenant := stored.get("tenant"):
        rows[keys.index_tenant(tenant, partition)] = True
    rows |= {keys.index_state(each, partition): str(each) == state for each in RunState}
    scores = await server.read_all(*(("ZSCORE", row, member) for row in rows))
    return [
        f"{row}: {'lacks' if wanted else 'wrongly has'} the run"
        for (row, wanted), score in zip(rows.items(), scores, strict=True)
        if (score is not None) != wanted
    ]


async def _work_problems(server: Server, run_id: str, stored: dict[str, str]) -> list[str]:
    """Compare the rows of queue and leases with the hash."""
    keys, partition, target = server.keys, server.keys.partition(run_id), stored.get("target", "")
    waits = stored.get("state") == RunState.PENDING and stored.get("queued") == "1"
    is_held = stored.get("state") == RunState.RUNNING and bool(stored.get("claim"))
    rows = ((keys.queue(target, partition), waits), (keys.leases(partition), is_held))
    scores = await server.read_all(*(("ZSCORE", row, run_id) for row, _ in rows))
    return [
        f"{row}: {'lacks' if wanted else 'wrongly has'} the run"
        for (row, wanted), score in zip(rows, scores, strict=True)
        if (score is not None) != wanted
    ]


async def _due_problems(server: Server, run_id: str, stored: dict[str, str]) -> list[str]:
    """Compare the rows that sweeps read with the due times in the hash."""
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
    expire_at = _number(stored, "expire_at") if state in TERMINAL_STATES else 0
    live_until = 0 if state in TERMINAL_STATES else _number(stored, "live_until")
    lease_until = int(clock[0]) * 1000 + int(clock[1]) // 1000 + _number(stored, "owner_lease_ms")
    early = "or before"
    # A run without live_until that began to run before its deadline may still have its row.
    is_live = state not in TERMINAL_STATES
    may_be_overdue = is_live and not live_until and bool(_number(stored, "deadline_ms"))
    found = [
        _due_problem(keys.expiring(partition), expiring, expire_at),
        # A write moves only the time in the hash, and the owner's lease only the row.
        "" if may_be_overdue else _due_problem(keys.overdue(partition), overdue, live_until, early),
        _due_problem(keys.owners(partition), owners, lease_until if is_owned else 0, early),
    ]
    return [
        f"{name}: {stored[name]!r} is not a number" for name in _DUE if _is_odd(stored, name)
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


def _is_odd(stored: dict[str, str], name: str) -> bool:
    return not re.fullmatch("[0-9]*", stored.get(name, ""), re.ASCII)


def _number(stored: dict[str, str], name: str) -> int:
    """A number of the hash; 0 if it is not a number, which has a problem of its own."""
    return 0 if _is_odd(stored, name) else int(stored.get(name) or 0)


def _text(value: Any) -> str | None:
    return None if value is None else text(value)
