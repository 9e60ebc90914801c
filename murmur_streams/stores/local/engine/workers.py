"""The list of live workers of a local store; no execution depends on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.work import MAX_REPORTED_RUNS, MAX_SILENT_BEATS, WorkerInfo
from murmur_streams.stores.local.engine.access import Access
from murmur_streams.stores.local.engine.database import Reader, Space
from murmur_streams.stores.local.engine.signals import Signals
from murmur_streams.stores.local.engine.transaction import Transaction
from murmur_streams.stores.work_store import WorkerList

MOST_WORKERS = 10_000


class LocalWorkers(WorkerList):
    """The workers that report themselves.

    Args:
        access: to the store's database.
        signals: keep messages for this process's workers.
        clock: milliseconds of Unix time.
        interval_seconds: how often each of them calls ``beat``.
    """

    def __init__(
        self,
        access: Access,
        signals: Signals,
        clock: Callable[[], int],
        interval_seconds: float = 5.0,
    ) -> None:
        self._access = access
        self._signals = signals
        self._clock = clock
        self._listed_ms = round(MAX_SILENT_BEATS * interval_seconds * 1000)

    async def beat(self, info: WorkerInfo) -> None:
        if not info.id:
            raise InvalidInputError("a worker needs an id")
        reported = replace(info, targets=[*info.targets], runs=[*info.runs][:MAX_REPORTED_RUNS])

        def write(group: Transaction) -> None:
            now_ms = group.now_ms
            for worker_id, row in _rows(group.database):
                if row["until_ms"] <= now_ms:
                    group.put(Space.WORKERS, worker_id, None)
            row = {**asdict(reported), "last_beat_ms": now_ms, "until_ms": now_ms + self._listed_ms}
            group.put(Space.WORKERS, info.id, json.dumps(row))

        await self._access.write(write)

    async def remove(self, worker_id: str) -> None:
        await self._access.write(lambda group: group.put(Space.WORKERS, worker_id, None))
        self._signals.forget(worker_id)

    async def list(self) -> list[WorkerInfo]:
        rows, now_ms = await self._access.read(_rows), self._clock()
        return [_info(row) for _, row in rows if row["until_ms"] > now_ms]


def _rows(reader: Reader) -> list[tuple[str, dict[str, Any]]]:
    items = reader.items(Space.WORKERS, limit=MOST_WORKERS)
    return [(worker_id, json.loads(text)) for worker_id, text in items]


def _info(row: Mapping[str, Any]) -> WorkerInfo:
    return WorkerInfo(**{name: value for name, value in row.items() if name != "until_ms"})
