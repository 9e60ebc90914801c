"""Fixtures of tests that both stores on disk must pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from murmur_streams.stores.local.engine.file_store import FileRunStore
from tests.stores.local.stores import STORES, Open, opener


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def open_again(kind: str, tmp_path: Path) -> Open:
    """Opens the test's store, with options; one at a time for RocksDB."""
    return opener(kind, tmp_path)


@pytest_asyncio.fixture
async def store(open_again: Open) -> AsyncIterator[FileRunStore]:
    async with open_again() as store:
        yield store
