"""The stores of one library at work, in a process of its own.

``python -m benchmarks.programs.store murmur_streams.runs`` (or ``murmur.runs``, with murmur-runtime
on the path) takes orders. It gives a store only its path or URL.
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from benchmarks.harness.meter import Meter
from benchmarks.harness.program import Order, serve
from benchmarks.harness.results import Reading
from benchmarks.programs import crowd, growing, reading, writing
from benchmarks.programs.bench import Bench

_CLASSES = {
    "memory": "InMemoryRunStore",
    "sqlite": "SQLiteRunStore",
    "rocksdb": "RocksDBRunStore",
    "redis": "RedisRunStore",
}
_WORKS: dict[str, Callable[..., Awaitable[list[Reading]]]] = {
    work.__name__: work for module in (writing, reading, crowd, growing) for work in module.WORKS
}


@asynccontextmanager
async def _opened(library: Any, order: Order) -> AsyncGenerator[Any]:
    kind = getattr(library, _CLASSES[order.store])
    store = kind(order.address) if order.address else kind()
    try:
        yield store
    finally:
        # murmur's store in memory lacks close().
        if close := getattr(store, "close", None):
            await close()


async def _do(library: Any, order: Order) -> list[Reading]:
    meter = Meter(order.address)
    try:
        async with _opened(library, order) as store:
            gc.collect()
            bench = Bench(library, order.store, store, meter, order.address)
            return await _WORKS[order.work](bench, **order.arguments)
    finally:
        meter.close()


def main() -> None:
    """Answer each order on stdin until it closes."""
    library = import_module(sys.argv[1])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    serve(lambda order: _do(library, order))


if __name__ == "__main__":
    main()
