import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.stores.rocksdb.freeze import FROZEN, dump, fill
from tests.stores.rocksdb.making import appended, opened


@pytest.fixture
def golden() -> object:
    return json.loads((FROZEN / "v1.json").read_text(encoding="utf-8"))


def test_a_store_of_version_1_is_read_and_written(tmp_path: Path, golden: object) -> None:
    """A folder from an earlier release gives the golden content, and accepts writes."""
    with ZipFile(FROZEN / "v1.zip") as archive:
        archive.extractall(tmp_path / "store")
    database = opened(tmp_path / "store")
    assert dump(database) == golden
    stored = database.stored("pending")
    assert stored is not None
    stored, group = appended(stored)
    position = database.commit(group)
    database.close()
    database = opened(tmp_path / "store")
    assert database.stored("pending") == stored
    assert database.feed(position[1] - 1, 9)[0].entry == group.feed[0][1]
    database.close()


def test_this_release_says_the_same_of_what_it_writes_itself(
    tmp_path: Path, golden: object
) -> None:
    """The same runs, written by this release, give the same golden content."""
    database = opened(tmp_path / "store")
    fill(database)
    assert dump(database) == golden
    database.close()
