"""The fixtures that every part of the contract uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
import pytest_asyncio

from murmur_streams.stores.protocol import RunStore
from murmur_streams.testing.workbench import StoreFactory, Workbench


@pytest.mark.asyncio
class ContractRoom:
    """What a part of the contract works in."""

    shares_runs: ClassVar[bool] = True
    """Whether two stores of the factory see the same runs."""

    @pytest.fixture
    def factory(self) -> StoreFactory:
        """Override this: open a store of yours, with the options that are given."""
        raise NotImplementedError("override the fixture 'factory' in your test class")

    @pytest_asyncio.fixture
    async def bench(self, factory: StoreFactory) -> AsyncIterator[Workbench]:
        """The test's stores and runs."""
        async with Workbench(factory, shares_runs=self.shares_runs) as bench:
            yield bench

    @pytest_asyncio.fixture
    async def store(self, bench: Workbench) -> RunStore:
        """A store with its default options."""
        return bench.open()

    async def everything_stored(self) -> object:
        """Override this to let the contract see that a refusal writes nothing anywhere.

        Returns:
            All that the store holds, in a form that can be compared.
        """
        return None
