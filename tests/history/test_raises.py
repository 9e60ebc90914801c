"""Raises of the number of partitions under load; ``make raises`` makes a hundred of them."""

from __future__ import annotations

import pytest

from tests.chaos.raises import one_round
from tests.cluster_service import cluster_service
from tests.running_server import short_folder
from tests.servers import Space


async def test_programs_work_on_while_the_number_is_raised(space: Space) -> None:
    """From 1 to 4 to 16: no run is lost, listed twice or executed twice."""
    found = await one_round(space.url, space.prefix)
    assert found.problems == []


@pytest.mark.slow
async def test_the_same_on_a_cluster() -> None:
    """There the partitions are on several nodes."""
    with short_folder() as folder, cluster_service(folder) as group:
        assert (await one_round(group.url, "raised")).problems == []
