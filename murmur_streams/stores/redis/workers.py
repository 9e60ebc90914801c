"""The data of workers in Redis besides claims: wake-up streams, and the list of live workers.

Idle workers block on the wake-up streams; a token there wakes one worker of a target. The list is
for people to look at: the execution of runs does not depend on it.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Sequence
from typing import Any

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.work import MAX_REPORTED_RUNS, MAX_SILENT_BEATS, WorkerInfo
from murmur_streams.settings import DAY_SECONDS
from murmur_streams.stores.protocol import WorkerList
from murmur_streams.stores.redis.connection.failures import code_of
from murmur_streams.stores.redis.replies import flatten, pairs, text
from murmur_streams.stores.redis.server import Server

WAKE_GROUP = "workers"
WAKE_CONSUMER = "any"
"""One consumer name for all workers: tokens are never acknowledged, and one name for each worker
would never be removed."""
WAKE_TTL_MS = DAY_SECONDS * 1000
"""A wake-up stream expires when no worker has waited on it for so long; as in include/queue.lua."""
RENEWED_SECONDS = DAY_SECONDS / 10
_TEXTS = ("host", "version", "python", "state")
_NUMBERS = ("pid", "concurrency", "started_ms", "held")


class WakeStreams:
    """The wake-up streams of all partitions, for one worker."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys = server.keys
        self._extended_at = -math.inf
        """When the expiry of the streams was last extended, by the loop's clock."""

    async def create(self, targets: Sequence[str]) -> None:
        """Create the streams and their group, where they are missing."""
        for key in self._wake_keys(targets):
            # In one round trip: a worker that ends in between would leave a stream without expiry.
            create = ("XGROUP", "CREATE", key, WAKE_GROUP, "0", "MKSTREAM")
            try:
                await self._server.read_all(create, ("PEXPIRE", key, WAKE_TTL_MS))
            except Exception as error:
                if "BUSYGROUP" not in str(error):
                    raise
        await self._extend(targets)

    async def _extend(self, targets: Sequence[str]) -> None:
        keys = self._wake_keys(targets)
        await self._server.read_all(*(("PEXPIRE", key, WAKE_TTL_MS) for key in keys))
        self._extended_at = asyncio.get_running_loop().time()

    async def wait(self, targets: Sequence[str], seconds: float) -> list[int]:
        """Wait for a token, at most ``seconds``; the partitions that it came from."""
        keys = self._wake_keys(targets)
        command = await self.command(targets, seconds)
        try:
            reply = await self._server.blocking(*command, seconds=seconds)
        except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
            await self.mend(error, targets)
            return []
        woken = {text(key) for key, _ in reply or ()}
        found = {keys.index(key) // len(targets) for key in woken if key in keys}
        return sorted(found, key=lambda _: random.random())  # noqa: S311  # no secret

    async def command(self, targets: Sequence[str], seconds: float) -> tuple[object, ...]:
        """The command that waits for a token; extends the expiry of the streams now and then."""
        keys = self._wake_keys(targets)
        if asyncio.get_running_loop().time() - self._extended_at >= RENEWED_SECONDS:
            await self._extend(targets)
        return (
            *("XREADGROUP", "GROUP", WAKE_GROUP, WAKE_CONSUMER, "COUNT", 1),
            *("BLOCK", max(1, round(seconds * 1000)), "NOACK"),
            *("STREAMS", *keys, *(">" for _ in keys)),
        )

    async def mend(self, error: Exception, targets: Sequence[str]) -> None:
        """After a wait has failed: make lost streams again, raise what no later wait can avoid."""
        if code_of(error) in {"NOGROUP", "UNBLOCKED", "WRONGTYPE"}:
            await self.create(targets)
        else:
            await judge_read(self._server, error)

    def _wake_keys(self, targets: Sequence[str]) -> list[str]:
        return [
            self._keys.wake(target, partition)
            for partition in self._keys.all_partitions
            for target in targets
        ]


async def judge_read(server: Server, error: Exception) -> None:
    """Raise an error that a later try cannot avoid; otherwise wait a moment."""
    if code_of(error) != "UNBLOCKED":
        server.judge(error)
        await server.recover(0)


class Workers(WorkerList):
    """The workers that report themselves.

    Args:
        server: holds the list.
        interval_seconds: how often each worker calls ``beat``.
    """

    def __init__(self, server: Server, interval_seconds: float) -> None:
        self._server = server
        self._keys = server.keys
        self._listed_ms = round(MAX_SILENT_BEATS * interval_seconds * 1000)

    async def beat(self, info: WorkerInfo) -> None:
        if not info.id:
            raise InvalidInputError("a worker needs an id")
        fields = {name: str(getattr(info, name)) for name in (*_TEXTS, *_NUMBERS)}
        fields["targets"] = json.dumps([*info.targets])
        fields["runs"] = json.dumps([*info.runs][:MAX_REPORTED_RUNS])
        answer = await self._server.idempotent_script(
            "register", [self._keys.worker(info.id)], [self._listed_ms, *flatten(fields)]
        )
        now_ms = int(answer[1])
        await self._server.read_all(
            ("ZADD", self._keys.workers, now_ms, info.id),
            ("ZREMRANGEBYSCORE", self._keys.workers, "-inf", f"({now_ms - self._listed_ms}"),
        )

    async def remove(self, worker_id: str) -> None:
        await self._server.read_all(
            ("DEL", self._keys.worker(worker_id)), ("ZREM", self._keys.workers, worker_id)
        )

    async def list(self) -> list[WorkerInfo]:
        flat = await self._server.read("ZRANGE", self._keys.workers, 0, -1, "WITHSCORES")
        beats = {worker_id: int(float(ms)) for worker_id, ms in pairs(flat).items()}
        if not beats:
            return []
        hashes = await self._server.read_all(
            *(("HGETALL", self._keys.worker(worker_id)) for worker_id in beats)
        )
        found = [
            _read(worker_id, beats[worker_id], pairs(fields))
            for worker_id, fields in zip(beats, hashes, strict=True)
            if fields
        ]
        return sorted(found, key=lambda info: info.id)


def _read(worker_id: str, last_beat_ms: int, fields: dict[str, str]) -> WorkerInfo:
    values: dict[str, Any] = {name: fields[name] for name in _TEXTS}
    values |= {name: int(fields[name]) for name in _NUMBERS}
    values |= {name: json.loads(fields[name]) for name in ("targets", "runs")}
    return WorkerInfo(id=worker_id, last_beat_ms=last_beat_ms, **values)
