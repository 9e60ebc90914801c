"""Lists runs newest first, merged over the partitions, from the indexes."""

from __future__ import annotations

import contextlib
import heapq
from itertools import islice

from murmur_streams.core.errors import RunDamagedError
from murmur_streams.core.pages import RunPage
from murmur_streams.core.run import Run, run_from_fields
from murmur_streams.core.states import RunState
from murmur_streams.stores.redis.server import Server, pairs, text

LEAST_PAGE = 100
"""Rows of the index in one read, once the first did not suffice: two round trips for each read."""


async def list_runs(
    server: Server, state: RunState | None, target: str | None, limit: int, cursor: str | None
) -> RunPage:
    """Read one page.

    The index is read in pages of its own: by two filters, or beside much that has expired, most
    of its rows may not match.

    A run that does not change is on exactly one page, whatever comes, goes or changes meanwhile:
    the cursor is the place of the last run looked at, and places never move.
    """
    found: list[tuple[str, Run]] = []
    # One more than asked for tells whether there is a next page.
    count = limit + 1
    while True:
        members = await _members(server, state, target, count, cursor)
        found += await _runs(server, members, state, target)
        runs = tuple(run for _, run in found[:limit])
        if len(found) > limit:
            return RunPage(runs, found[limit - 1][0])
        if len(members) < count:
            return RunPage(runs, None)
        cursor = members[-1]
        if len(found) == limit:
            return RunPage(runs, cursor)
        count = max(count, LEAST_PAGE)


async def _members(
    server: Server, state: RunState | None, target: str | None, count: int, cursor: str | None
) -> list[str]:
    top = "+" if cursor is None else f"({cursor}"
    pages = await server.read_all(
        *(
            ("ZREVRANGEBYLEX", _index(server, state, target, each), top, "-", "LIMIT", 0, count)
            for each in server.keys.all_partitions
        )
    )
    merged = heapq.merge(*([text(member) for member in page] for page in pages), reverse=True)
    return list(islice(merged, count))


def _index(server: Server, state: RunState | None, target: str | None, partition: int) -> str:
    # Both filters: the target's runs are fewer as a rule, and the state is in the hash.
    if target is not None:
        return server.keys.index_target(target, partition)
    if state is not None:
        return server.keys.index_state(state, partition)
    return server.keys.index(partition)


async def _runs(
    server: Server, members: list[str], state: RunState | None, target: str | None
) -> list[tuple[str, Run]]:
    """The matching runs, each behind its member of the index."""
    if not members:
        return []
    run_ids = [member.partition(":")[2] for member in members]
    hashes = await server.read_all(*(("HGETALL", server.keys.run(each)) for each in run_ids))
    runs: list[tuple[str, Run]] = []
    for member, run_id, flat in zip(members, run_ids, hashes, strict=True):
        with contextlib.suppress(RunDamagedError):
            if flat:
                runs.append((member, run_from_fields(run_id, pairs(flat))))
    return [
        (member, run)
        for member, run in runs
        if state in {None, run.state} and target in {None, run.target}
    ]
