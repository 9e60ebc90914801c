"""Forms every key of the store; no other module in Python does (schema version 1)."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.model.run import listing_key
from murmur_streams.core.model.states import RunState
from murmur_streams.settings import KEY_PREFIX
from murmur_streams.stores.redis.counts import MOST_PARTITIONS, PartitionCounts

SCHEMA_VERSION = 1
MOST_LOCATED = 50_000
"""The most runs whose partition is remembered while there are several numbers of partitions."""
RECORDED_COUNTS = "".join(["recorded ", "counts"])
"""In the arguments of a script, this very object stands for the numbers of partitions that the
store has when the script is sent."""


def _of_run(row: str) -> Callable[..., str]:
    """A method that forms a key of one run, in its partition or in one that the caller knows."""

    def key(self: Keys, run_id: str, partition: int | None = None) -> str:
        where = self.partition(run_id) if partition is None else partition
        return f"{self.base(where)}:{row}:{run_id}"

    return key


def _of_partition(row: str) -> Callable[[Keys, int], str]:
    """A method that forms a key that all runs of a partition share."""

    def key(self: Keys, partition: int) -> str:
        return f"{self.base(partition)}:{row}"

    return key


class Keys:
    """Forms every key under one prefix."""

    run = _of_run("run")
    journal = _of_run("journal")
    producers = _of_run("producers")
    """Of a program of an earlier version: the last call of each, and its answer."""
    input = _of_run("input")
    result = _of_run("result")
    checkpoint = _of_run("checkpoint")
    feed = _of_partition("feed")
    leases = _of_partition("leases")
    expiring = _of_partition("expiring")
    overdue = _of_partition("overdue")
    owners = _of_partition("owners")
    dead_targets = _of_partition("dead")
    paused = _of_partition("paused")
    sweeper = _of_partition("sweeper")
    index = _of_partition("index")
    partition_meta = _of_partition("meta")
    """Where a partition records the number of partitions: its scripts cannot read ``meta``."""

    def __init__(self, prefix: str, partitions: int = 1) -> None:
        prefix = prefix.rstrip(":")
        if not KEY_PREFIX.fullmatch(prefix):
            raise StoreConfigurationError(
                f"key_prefix {ascii(prefix)[:80]} is refused: use 1 to 64 characters of "
                "A-Z a-z 0-9 . _ : - that begin with a letter or a digit"
            )
        if not 1 <= partitions <= MOST_PARTITIONS:
            raise StoreConfigurationError(
                f"partitions is {partitions}, but must be from 1 to {MOST_PARTITIONS}"
            )
        self.prefix = prefix
        self.counts = PartitionCounts((partitions,))
        self._only = partitions
        """The number of partitions, while there is only one."""
        self.meta = f"{prefix}:meta"
        self.workers = f"{prefix}:workers"
        self._located: dict[str, int] = {}
        """While there are several numbers of partitions: the partitions of runs."""

    @property
    def partitions(self) -> int:
        """How many partitions may have runs."""
        return self.counts.newest

    def change(self, counts: PartitionCounts) -> None:
        """Take over the numbers of partitions that the key space has now."""
        self.counts = counts
        self._only = counts.newest if counts.is_single else 0
        self._located = {}

    def is_located(self, run_id: str) -> bool:
        """Whether ``partition`` knows where the run is, or would be created."""
        return self._only > 0 or run_id in self._located

    def locate(self, run_id: str, partition: int) -> None:
        """Note the partition of a run."""
        if self.counts.is_single:
            return
        if len(self._located) >= MOST_LOCATED:
            # Those that are needed again are looked for again.
            self._located.clear()
        self._located[run_id] = partition

    def unlocate(self, run_id: str) -> None:
        """Forget the partition of a run: it was not found there."""
        self._located.pop(run_id, None)

    def partition(self, run_id: str) -> int:
        """The partition whose hash tag all keys of the run share.

        Raises:
            KeyError: there are several numbers of partitions, and the run was not looked for.
        """
        if self._only == 1:
            return 0
        return zlib.crc32(run_id.encode()) % self._only if self._only else self._located[run_id]

    @staticmethod
    def partition_of_key(key: str) -> int:
        """The partition in whose hash tag a key is."""
        return int(key.partition("{")[2].partition("}")[0])

    @property
    def all_partitions(self) -> range:
        """Every partition's number."""
        return range(self.partitions)

    def base(self, partition: int) -> str:
        """The start of every key of the partition; scripts form their own keys from it."""
        return f"{self.prefix}:{{{partition}}}"

    def base_and_feed(self, partition: int) -> list[str]:
        """The KEYS of the scripts that serve all runs of a partition: its base and its feed."""
        return [self.base(partition), self.feed(partition)]

    def commit_keys(self, partition: int) -> list[str]:
        """The KEYS of the script that writes to the partition's runs.

        The feed nearly always exists, and no key has the name of the base. While a cluster moves
        the slot, a call that declares an existing and a missing key is refused by both servers, so
        it cannot run on one that has only some of the keys.
        """
        return [self.feed(partition), self.base(partition)]

    def restoring(self, run_id: str, digest: str) -> str:
        """Where the journal of a run that is being restored is collected."""
        return f"{self.base(self.partition(run_id))}:restoring:{run_id}:{digest}"

    def of_run(self, run_id: str) -> list[str]:
        """All keys of a run; they expire together."""
        base = self.base(self.partition(run_id))
        rows = ("run", "journal", "producers", "input", "result", "checkpoint")
        return [f"{base}:{row}:{run_id}" for row in rows]

    def producer(self, producer: str, partition: int) -> str:
        """The last calls of a store to a partition, and their answers."""
        return f"{self.base(partition)}:producer:{producer}"

    def dead(self, target: str, partition: int) -> str:
        return f"{self.base(partition)}:dead:{target}"

    def worker(self, worker_id: str) -> str:
        return f"{self.prefix}:worker:{worker_id}"

    def index_state(self, state: RunState, partition: int) -> str:
        return f"{self.base(partition)}:index:state:{state}"

    def index_target(self, target: str, partition: int) -> str:
        return f"{self.base(partition)}:index:target:{target}"

    def index_tenant(self, tenant: str, partition: int) -> str:
        return f"{self.base(partition)}:index:tenant:{tenant}"

    def queue(self, target: str, partition: int) -> str:
        return f"{self.base(partition)}:queue:{target}"

    def wake(self, target: str, partition: int) -> str:
        return f"{self.base(partition)}:wake:{target}"

    def idle(self, target: str, partition: int) -> str:
        """On a cluster: the workers that wait for runs of a target."""
        return f"{self.base(partition)}:idle:{target}"

    def control(self, worker_id: str, partition: int) -> str:
        return f"{self.base(partition)}:control:{worker_id}"

    def hints(self, worker_id: str, partition: int) -> str:
        """The channel on which a worker of a cluster is woken."""
        return f"{self.base(partition)}:hints:{worker_id}"

    def tail(self, reader_id: str, partition: int) -> str:
        return f"{self.base(partition)}:tail:{reader_id}"


def removal_row(target: str, created_ms: int, run_id: str, tenant: str | None = None) -> str:
    """A run's member of ``expiring`` and ``overdue``: it names every index that the run is in."""
    whose = f"{target}/{tenant}" if tenant else target
    return f"{whose}:{listing_key(created_ms, run_id)}"
