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


async def list_runs(
    server: Server, state: RunState | None, target: str | None, limit: int, cursor: str | None
) -> RunPage:
    """Read one page.

    A run that does not change is on exactly one page, whatever comes, goes or changes meanwhile:
    the cursor is the place of the last run looked at, and places never move.
    """
    found: list[Run] = []
    while True:
        wanted = limit - len(found)
        members = await _members(server, state, target, wanted, cursor)
        found += await _runs(server, members, state, target)
        if len(members) < wanted:
            return RunPage(tuple(found), None)
        # Runs that expired, or moved on, since the index was read leave room for more.
        cursor = members[-1]
        if len(found) == limit:
            return RunPage(tuple(found), cursor)


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
) -> list[Run]:
    if not members:
        return []
    run_ids = [member.partition(":")[2] for member in members]
    hashes = await server.read_all(*(("HGETALL", server.keys.run(each)) for each in run_ids))
    runs: list[Run] = []
    for run_id, flat in zip(run_ids, hashes, strict=True):
        with contextlib.suppress(RunDamagedError):
            if flat:
                runs.append(run_from_fields(run_id, pairs(flat)))
    return [run for run in runs if state in {None, run.state} and target in {None, run.target}]
