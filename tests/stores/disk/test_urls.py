"""``sqlite:`` and ``rocksdb:`` URLs name paths, and say so when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from murmur_streams import StoreConfigurationError, open_store
from murmur_streams.stores.disk.store import DiskRunStore
from tests.stores.disk.stores import STORES


def path_of(url: str) -> Path:
    store = open_store(url)
    assert isinstance(store, DiskRunStore)
    assert isinstance(store, STORES[url.partition(":")[0]])
    return store.path


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ("///var/lib/runs", "/var/lib/runs"),
        ("/var/lib/runs", "/var/lib/runs"),
        ("runs.db", "runs.db"),
        ("here/runs.db", "here/runs.db"),
        ("///a%20b/%C3%BC%3F%23", "/a b/ü?#"),
    ],
)
def test_a_url_names_a_path(kind: str, rest: str, path: str) -> None:
    assert path_of(f"{kind}:{rest}") == Path(path)


@pytest.mark.parametrize("rest", ["", "//", "///", "//host/runs.db", "//runs.db"])
def test_a_url_without_a_path_says_how_to_write_one(kind: str, rest: str) -> None:
    with pytest.raises(StoreConfigurationError, match=f"{kind}:///path/to/it"):
        open_store(f"{kind}:{rest}")


@pytest.mark.parametrize("rest", ["///runs?sync=1", "///runs#1"])
def test_a_url_with_settings_in_it_is_refused(kind: str, rest: str) -> None:
    with pytest.raises(StoreConfigurationError, match="options of the store"):
        open_store(f"{kind}:{rest}")


async def test_a_store_of_a_url_takes_options_and_works(kind: str, tmp_path: Path) -> None:
    async with open_store(f"{kind}://{tmp_path}/runs", ttl_seconds=5, sync=True) as store:
        await store.create("run", "target")
        assert (await store.get_status("run")).state == "pending"
