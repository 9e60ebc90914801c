"""The list of live workers, for people to look at; the execution of runs does not depend on it."""

from __future__ import annotations

import json
from typing import Any

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.work import MAX_REPORTED_RUNS, MAX_SILENT_BEATS, WorkerInfo
from murmur_streams.stores.redis.replies import flatten, pairs
from murmur_streams.stores.redis.server import Server

_TEXTS = ("host", "version", "python", "state")
_NUMBERS = ("pid", "concurrency", "started_ms", "held")


class Workers:
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
        """List a worker, until four intervals after its last call."""
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
        """Remove a worker that has stopped from the list."""
        await self._server.read_all(
            ("DEL", self._keys.worker(worker_id)), ("ZREM", self._keys.workers, worker_id)
        )

    async def list(self) -> list[WorkerInfo]:
        """Read the listed workers, ordered by id."""
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
