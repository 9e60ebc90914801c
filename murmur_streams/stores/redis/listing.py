"""Lists runs from the indexes, newest first, merged over the partitions."""

from __future__ import annotations

import contextlib
import heapq
from itertools import islice

from murmur_streams.core.model.errors import RunDamagedError
from murmur_streams.core.model.run import Run, RunFilter, RunPage, run_from_fields
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.replies import pairs, text
from murmur_streams.stores.redis.server import Server

LEAST_PAGE = 100
"""The least rows of a read after the first one: each read costs two round trips."""


async def list_runs(server: Server, wanted: RunFilter, limit: int, cursor: str | None) -> RunPage:
    """Read one page.

    With two filters, or many expired runs, most rows of an index may not match: so the index is
    read in pages of its own.

    A run that does not change is on exactly one page, whatever is created, removed or changed
    meanwhile: the cursor is the index member of the last run that was read, and members of a run
    never change.
    """
    found: list[tuple[str, Run]] = []
    await server.locator.look_at_counts()
    indexes = await _indexes(server, wanted)
    # One run more than the page: it shows whether there is a next page.
    count = limit + 1
    while True:
        members = await _members(server, indexes, count, cursor)
        found += await _runs(server, members, wanted)
        runs = tuple(run for _, run in found[:limit])
        if len(found) > limit:
            return RunPage(runs, found[limit - 1][0])
        if len(members) < count:
            return RunPage(runs, None)
        cursor = members[-1]
        if len(found) == limit:
            return RunPage(runs, cursor)
        count = max(count, LEAST_PAGE)


async def _indexes(server: Server, wanted: RunFilter) -> list[str]:
    """For each partition, the smallest index that has all runs that are wanted.

    A run has the same member in every index, so a cursor continues in any of them.
    """
    choices = [_choices(server.keys, wanted, each) for each in server.keys.all_partitions]
    if len(choices[0]) == 1:
        return [names[0] for names in choices]
    counts = iter(await server.read_all(*(("ZCARD", name) for names in choices for name in names)))
    return [min((int(next(counts)), name) for name in names)[1] for names in choices]


def _choices(keys: Keys, wanted: RunFilter, partition: int) -> list[str]:
    choices = [
        wanted.tenant and keys.index_tenant(wanted.tenant, partition),
        wanted.target and keys.index_target(wanted.target, partition),
        wanted.state and keys.index_state(wanted.state, partition),
    ]
    return [*filter(None, choices)] or [keys.index(partition)]


async def _members(server: Server, indexes: list[str], count: int, cursor: str | None) -> list[str]:
    top = "+" if cursor is None else f"({cursor}"
    pages = await server.read_all(
        *(("ZREVRANGEBYLEX", index, top, "-", "LIMIT", 0, count) for index in indexes)
    )
    rows = [[text(member) for member in page] for page in pages]
    if not server.keys.counts.is_single:
        # A row is in the partition of its run.
        for index, page in zip(indexes, rows, strict=True):
            for member in page:
                server.keys.locate(_run_id_of(member), server.keys.partition_of_key(index))
    return list(islice(heapq.merge(*rows, reverse=True), count))


def _run_id_of(member: str) -> str:
    return member.partition(":")[2]


async def _runs(server: Server, members: list[str], wanted: RunFilter) -> list[tuple[str, Run]]:
    """The matching runs, each with its member of the index."""
    if not members:
        return []
    run_ids = [_run_id_of(member) for member in members]
    await server.locator.locate(*run_ids)
    hashes = await server.read_all(*(("HGETALL", server.keys.run(each)) for each in run_ids))
    runs: list[tuple[str, Run]] = []
    for member, run_id, flat in zip(members, run_ids, hashes, strict=True):
        with contextlib.suppress(RunDamagedError):
            if flat:
                runs.append((member, run_from_fields(run_id, pairs(flat))))
    return [(member, run) for member, run in runs if wanted.wants(run)]
