"""Raises the number of partitions of a key space without runs; see docs/partitions.md."""

from __future__ import annotations

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.model.run import MOST_RUNS
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.store import RedisRunStore, server_of


async def raise_partitions(
    store: RedisRunStore, number: int, *, delete_ended: bool = False
) -> None:
    """Record a larger number of partitions; the partition of each run would change with it.

    Args:
        store: opened with the present number.
        number: the new one.
        delete_ended: delete the ended runs first.

    Raises:
        StoreConfigurationError: the number is not larger, or the key space has runs.
    """
    server = server_of(store)
    keys = server.keys
    if number <= keys.partitions:
        raise StoreConfigurationError(
            f"the runs under {keys.prefix!r} have {keys.partitions} partitions; "
            f"{number} is not more"
        )
    await store.sweep()
    live, ended = await count_runs(store)
    if live:
        raise StoreConfigurationError(
            f"{live} runs under {keys.prefix!r} have not ended; with another number of partitions "
            "they would not be found: stop what submits runs and let the workers finish first"
        )
    if ended and not delete_ended:
        raise StoreConfigurationError(
            f"{ended} ended runs under {keys.prefix!r} have not expired; with another number of "
            "partitions they would not be found: wait until they expire, or say --delete-ended"
        )
    for state in TERMINAL_STATES:
        while page := (await store.list_runs(state=state, limit=MOST_RUNS)).runs:
            for run in page:
                await store.delete(run.run_id)
    partitions = Keys(keys.prefix, number)
    meta = ("HSET", keys.meta, "partitions", number)
    each_partition = [
        ("HSET", partitions.partition_meta(each), "partitions", number)
        for each in partitions.all_partitions
    ]
    # From this moment on, every program with the old number is rejected. If meta were written
    # first, a new program could start and create runs by the new number in a partition that still
    # accepts runs by the old one.
    if server.is_cluster:
        # No transaction has keys of several nodes. One that is cut off between the two is repeated.
        await server.read_all(*each_partition)
        await server.read_all(meta)
    else:
        await server.read_all(("MULTI",), meta, *each_partition, ("EXEC",))


async def count_runs(store: RedisRunStore) -> tuple[int, int]:
    """Count the live and the ended runs, by the indexes."""
    server, ended = server_of(store), {True: 0, False: 0}
    for state in RunState:
        rows = [server.keys.index_state(state, each) for each in server.keys.all_partitions]
        counts = await server.read_all(*(("ZCARD", row) for row in rows))
        ended[state.is_terminal] += sum(map(int, counts))
    return ended[False], ended[True]
