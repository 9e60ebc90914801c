"""Any client, any pod, any cut: each event of its run once, whatever happens to the pods."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.pods.balancer import balanced
from tests.pods.conftest import PATIENCE_SECONDS, Pods
from tests.pods.event_source import PlainClient
from tests.servers import Space

RUNS = 100
CLIENTS_PER_RUN = 3
EVENTS = 40
BETWEEN_SECONDS = 0.3


async def emit_all(store: RedisRunStore, run_ids: list[str], began: asyncio.Event) -> None:
    """Write the events of all runs, a round at a time, then end them."""
    for number in range(EVENTS):
        events = [
            RunEvent(type=RunEventType.CUSTOM, run_id=run_id, name="step", data=number)
            for run_id in run_ids
        ]
        await asyncio.gather(*(store.append(event.run_id, event) for event in events))
        began.set()
        await asyncio.sleep(BETWEEN_SECONDS)
    for run_id in run_ids:
        await store.finish(run_id, RunState.COMPLETED)


@pytest.mark.slow
@pytest.mark.fault("F37")
async def test_300_clients_miss_nothing_while_pods_end(
    space: Space, pods: Pods, tmp_path: Path
) -> None:
    """Pods are killed and drained while the clients read."""
    chance = random.Random(20_261_123)
    run_ids = [f"run-{number}" for number in range(RUNS)]
    begun = await pods.started(3)
    killed, drained, _ = begun
    async with space.store() as store, balanced(list(begun), tmp_path) as port:
        for run_id in run_ids:
            await store.create(run_id, "counts")
            await store.set_state(run_id, RunState.RUNNING)
        clients = [
            PlainClient(port, run_id, random.Random(chance.random()))
            for run_id in run_ids * CLIENTS_PER_RUN
        ]
        reading = [asyncio.create_task(client.read()) for client in clients]
        began = asyncio.Event()
        emitting = asyncio.create_task(emit_all(store, run_ids, began))
        await began.wait()
        await asyncio.sleep(2)
        begun[killed].kill()
        await asyncio.sleep(2)
        begun[drained].send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(begun[drained].wait, PATIENCE_SECONDS) == 0
        await emitting
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*reading)
    for client in clients:
        assert [event["data"] for event in client.seen] == list(range(EVENTS))
    # They were cut, and met more than one pod.
    assert sum(client.connections for client in clients) > 3 * len(clients)
