"""The fixtures that every part of the contract uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.workbench import StoreFactory, Workbench


def opened_with(**options: Any) -> pytest.MarkDecorator:
    """Open the stores of a test with these options."""
    shown = "-".join(f"{name}={value}" for name, value in options.items())
    return pytest.mark.parametrize("store_options", [options], ids=[shown])


@pytest.mark.asyncio
class ContractFixtures:
    """The stores and runs of one test."""

    shares_runs: ClassVar[bool] = True
    """Whether two stores of the factory see the same runs."""

    @pytest.fixture
    def factory(self) -> StoreFactory:
        """Override this: open a store of yours, with the options that are given."""
        raise NotImplementedError("override the fixture 'factory' in your test class")

    @pytest.fixture
    def store_options(self) -> dict[str, Any]:
        """The options of ``store`` and ``other``: each store's default; see ``opened_with``."""
        return {}

    @pytest_asyncio.fixture
    async def bench(self, factory: StoreFactory) -> AsyncIterator[Workbench]:
        """The test's stores and runs."""
        async with Workbench(factory, shares_runs=self.shares_runs) as bench:
            yield bench

    @pytest_asyncio.fixture
    async def store(self, bench: Workbench, store_options: dict[str, Any]) -> RunStore:
        """An open store."""
        return bench.open(**store_options)

    @pytest_asyncio.fixture
    async def other(
        self, bench: Workbench, store: RunStore, store_options: dict[str, Any]
    ) -> RunStore:
        """Another store with the runs of ``store``, as another process would open it."""
        return bench.other(store, **store_options)

    @pytest_asyncio.fixture
    async def run_id(self, bench: Workbench, store: RunStore) -> str:
        """A new run on TARGET without an input."""
        return await bench.run(store)

    async def everything_stored(self) -> object:
        """Override this to let the contract see that a refusal writes nothing anywhere.

        Returns:
            All that the store holds, in a form that can be compared.
        """
        return None
