"""A pod on a store that only reads: it shows runs, and refuses what would change them."""

from __future__ import annotations

from murmur_streams import Fleet
from murmur_streams.server import make_app
from tests.server.serving import check_problem, client_of, task, unchanged
from tests.servers import Space


async def test_a_pod_that_only_reads_refuses_writes(space: Space, fleet: Fleet) -> None:
    """Such a request is not for another time: 403 without Retry-After, and nothing is written."""
    run_id = (await fleet.submit("fine", 1)).run_id
    reading = Fleet(space.url, key_prefix=space.prefix, read_only=True)
    async with reading, client_of(make_app(reading)) as client:
        assert (await client.get(f"/runs/{run_id}")).json()["state"] == "pending"
        with unchanged(space):
            answers = [
                await client.post("/submit", json=task(1)),
                await client.post(f"/runs/{run_id}/cancel", json={}),
                await client.delete(f"/runs/{run_id}?force=true"),
            ]
        for answer in answers:
            document = check_problem(answer, 403, "read-only")
            assert "MURMUR_READ_ONLY" in document["detail"]
            assert "Retry-After" not in answer.headers
        assert (await client.get("/readyz")).status_code == 200
