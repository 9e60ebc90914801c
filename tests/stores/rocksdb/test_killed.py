import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores.rocksdb.making import appended, created, new_run, opened

WRITER = """
import sys
from pathlib import Path

import pytest
from tests.stores.rocksdb.test_killed import write_for_ever
write_for_ever(Path(sys.argv[1]))
"""
KILLS = 20


def write_for_ever(path: Path) -> None:
    """Grow two runs in one group each time, and say their version once it is committed."""
    database = opened(path, feed_max_entries=50)
    stored = [database.stored(run_id) for run_id in ("a", "b")]
    one, other = (each or new_run(name) for each, name in zip(stored, ("a", "b"), strict=True))
    if stored[0] is None:
        database.commit(created(one))
        database.commit(created(other))
    while True:
        one, group = appended(one, data="x" * (one.run.version * 37 % 3000))
        other, second = appended(other, data="y" * 100)
        group.runs |= second.runs
        group.feed += second.feed
        database.commit(group)
        sys.stdout.write(f"{one.run.version}\n")
        sys.stdout.flush()


@pytest.mark.slow
@pytest.mark.fault("F43")
def test_a_killed_process_loses_no_acknowledged_group(tmp_path: Path) -> None:
    """Every group that was acknowledged is there, and each group is there whole or not at all."""
    path = tmp_path / "store"
    for kill in range(KILLS):
        acknowledged = 0
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(1 + kill * 13 % 200):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            rest = writer.stdout.read().split("\n")
        acknowledged = max([acknowledged, *map(int, filter(None, rest[:-1]))])
        check(path, acknowledged)


def check(path: Path, acknowledged: int) -> None:
    database = opened(path, feed_max_entries=50)
    one, other = database.journal("a", 0, 100_000), database.journal("b", 0, 100_000)
    assert one is not None
    assert other is not None
    version = one[0].run.version
    assert version in {acknowledged, acknowledged + 1}
    assert other[0].run.version == version
    for _, entries in (one, other):
        assert [each.seq for each in entries] == list(range(1, version + 1))
    assert database.feed_ends()[1][1] == 2 * version
    assert [row.entry.run_id for row in database.feed(0, 100)[-2:]] == ["a", "b"]
    database.close()
