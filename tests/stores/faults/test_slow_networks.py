"""A slow network changes how long a call takes, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from murmur_streams.core.model.states import RunState
from murmur_streams.embedded import EmbeddedServer
from murmur_streams.testing.faults import TcpProxy
from tests.stores.faults.conftest import StoreMaker
from tests.stores.faults.events import names_in_stream, note

DELAY_SECONDS = 0.003
"""Of each piece in each direction."""
PIECE_BYTES = 700


@pytest.mark.fault("F48")
async def test_late_packets_cost_only_time(
    server: EmbeddedServer, make_store: StoreMaker, nothing_is_left: None
) -> None:
    """Everything that is written over a slow network is there once, and read in order."""
    async with TcpProxy(str(server.socket_path)) as proxy:
        proxy.delay_seconds, proxy.piece_bytes = DELAY_SECONDS, PIECE_BYTES
        store = make_store(f"redis://127.0.0.1:{proxy.port}", call_seconds=5.0)
        await store.create("run", "work")
        reading = asyncio.create_task(names_in_stream(store, "run"))
        names = [f"{number}" for number in range(30)]
        versions = await asyncio.gather(*(store.append("run", note("run", each)) for each in names))
        await store.finish("run", RunState.COMPLETED)
        assert sorted(versions) == [*range(2, 32)]
        assert await reading == names
        assert (await store.audit("run")).ok
        await store.close()
