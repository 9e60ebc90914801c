"""``sqlite:`` and ``rocksdb:`` URLs name paths, and say so when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from murmur_streams import StoreConfigurationError, open_store
from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.stores.open import path_on_disk
from tests.stores.local.stores import STORES


def path_of(url: str) -> Path:
    store = open_store(url)
    assert isinstance(store, FileRunStore)
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
    """The path may be absolute or relative, after two or no slashes."""
    assert path_of(f"{kind}:{rest}") == Path(path).absolute()


@pytest.mark.parametrize("rest", ["", "//", "///", "//host/runs.db", "//runs.db"])
def test_a_url_without_a_path_says_how_to_write_one(kind: str, rest: str) -> None:
    """The error shows a correct URL."""
    with pytest.raises(StoreConfigurationError, match=f"{kind}:///path/to/it"):
        open_store(f"{kind}:{rest}")


@pytest.mark.parametrize("rest", ["///runs?sync=1", "///runs#1"])
def test_a_url_with_settings_in_it_is_refused(kind: str, rest: str) -> None:
    """Options such as ?sync=1 belong to the store, not into its URL."""
    with pytest.raises(StoreConfigurationError, match="options of the store"):
        open_store(f"{kind}:{rest}")


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        (":memory:", "memory:"),
        ("/:memory:", "memory:"),
        ("~/runs.db", r"\$HOME"),
        ("///~user/runs.db", r"\$HOME"),
    ],
)
def test_what_is_meant_otherwise_than_a_path_is_refused(kind: str, rest: str, what: str) -> None:
    """The error for :memory: and ~ names the right way to write it."""
    with pytest.raises(StoreConfigurationError, match=what):
        open_store(f"{kind}:{rest}")


def test_a_folder_is_no_file_of_sqlite() -> None:
    """sqlite: with a trailing slash is refused with a proposal; rocksdb: takes it."""
    with pytest.raises(StoreConfigurationError, match=r"write sqlite:runs/runs\.db"):
        open_store("sqlite:runs/")
    assert path_on_disk("rocksdb:runs/") == Path("runs")


def test_only_a_url_of_a_file_or_folder_has_a_path() -> None:
    """The path of a redis: URL is None; a sqlite: URL without a path is refused."""
    assert path_on_disk("sqlite:runs.db") == Path("runs.db")
    assert path_on_disk("redis://localhost:6379/0") is None
    with pytest.raises(StoreConfigurationError):
        path_on_disk("sqlite:")


async def test_a_store_of_a_url_takes_options_and_works(kind: str, tmp_path: Path) -> None:
    """open_store passes options such as ttl_seconds and sync on to the store."""
    async with open_store(f"{kind}://{tmp_path}/runs", ttl_seconds=5, sync=True) as store:
        await store.create("run", "target")
        assert (await store.get_status("run")).state == "pending"
