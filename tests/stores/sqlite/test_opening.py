"""Opening a file: a new one becomes a store, ours is opened, all others stay as they are."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest

from murmur_streams.core.model.errors import (
    StoreConfigurationError,
    StoreDamagedError,
    StoreError,
)
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.sqlite.store import SCHEMA, Schema, open_sqlite
from murmur_streams.stores.local.sqlite.tables import SCHEMA_VERSION
from tests.stores.local.databases import a_run, an_entry, created, seqs, write

OTHER_USER = 65534
NEWER = SCHEMA_VERSION + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my runs?#%.db"


def _open(path: Path, schema: Schema = SCHEMA) -> Database:
    return open_sqlite(path, sync=False, feed_max_entries=10, schema=schema)


def _make(path: Path) -> None:
    database = _open(path)
    run = a_run()
    write(database, created(run, *(an_entry(run, n, data="x" * 500) for n in range(1, 100))))
    database.close()


def _query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def _content(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}


@pytest.mark.parametrize("is_there", [False, True])
def test_a_missing_or_empty_file_becomes_a_store(path: Path, is_there: bool) -> None:
    """It gets our mark, the schema version and the write-ahead log."""
    if is_there:
        path.touch()
    _make(path)
    assert path.read_bytes()[68:72] == b"murm"
    assert _query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert _query(path, "PRAGMA journal_mode") == [("wal",)]
    assert _query(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_database_without_a_table_becomes_a_store(path: Path) -> None:
    """An empty SQLite database may be used."""
    _query(path, "PRAGMA journal_mode = WAL")
    assert path.stat().st_size > 0
    _make(path)
    assert seqs(_open(path))[-1] == 99


def test_the_last_to_close_leaves_one_file(path: Path) -> None:
    """After the last close, -wal and -shm are gone."""
    _make(path)
    one, other = _open(path), _open(path)
    one.begin()
    one.close()
    other.reader().close()
    other.close()
    assert list(_content(path)) == [path.name]


def test_a_store_may_be_given_by_a_link(path: Path, tmp_path: Path) -> None:
    """A symbolic link to a store opens that store."""
    _make(path)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    database = _open(link)
    assert seqs(database)[-1] == 99
    database.close()


class TestPaths:
    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        """The error names the folder that does not exist."""
        with pytest.raises(StoreConfigurationError, match=r"folder .*/no/folder does not exist"):
            _open(tmp_path / "no" / "folder" / "runs.db")

    def test_a_file_as_the_folder_is_refused(self, path: Path) -> None:
        """A path below a file raises StoreConfigurationError."""
        path.touch()
        with pytest.raises(StoreConfigurationError):
            _open(path / "runs.db")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        """A path that is a folder raises StoreConfigurationError."""
        with pytest.raises(StoreConfigurationError, match="is a folder"):
            _open(tmp_path)

    def test_a_pipe_is_refused(self, path: Path) -> None:
        """A path that is not a regular file raises StoreConfigurationError."""
        os.mkfifo(path)
        with pytest.raises(StoreConfigurationError, match="not a regular file"):
            _open(path)

    @pytest.mark.parametrize("name", [":memory:", "file:runs.db", "file:runs.db?mode=memory"])
    def test_a_name_that_only_sqlite_understands_is_refused(
        self, tmp_path: Path, name: str
    ) -> None:
        """For :memory: and file: the error names the store in memory, and no file is created."""
        with pytest.raises(StoreConfigurationError, match="memory: for the store in memory"):
            _open(tmp_path / name)
        assert not list(tmp_path.iterdir())

    @pytest.fixture
    def shared(self) -> Iterator[Path]:
        # pytest's own folders are closed to other users, and root may do everything.
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "inner").mkdir()
            _make(folder / "inner" / "runs.db")
            is_root = os.geteuid() == 0
            folder.chmod(0o755)
            if is_root:
                os.setresuid(OTHER_USER, OTHER_USER, 0)
            yield folder / "inner"
            if is_root:
                os.setresuid(0, 0, 0)
            (folder / "inner").chmod(0o700)

    @pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o777), (0, 0o777), (0o666, 0)])
    def test_a_file_without_permission_is_refused(
        self, shared: Path, file_mode: int, folder_mode: int
    ) -> None:
        """The error speaks of permissions, for the file and for its folder."""
        owner = os.getresuid()
        is_root = owner[2] == 0
        if is_root:
            os.setresuid(0, 0, 0)
        (shared / "runs.db").chmod(file_mode)
        shared.chmod(folder_mode)
        if is_root:
            os.setresuid(*owner)
        with pytest.raises(StoreConfigurationError, match="permissions"):
            _open(shared / "runs.db")


def _text(path: Path) -> None:
    path.write_text("runs: none\n" * 100)


def _short_text(path: Path) -> None:
    path.write_bytes(b"x")


def _others(path: Path) -> None:
    _query(path, "CREATE TABLE things (x)")


def _others_in_wal(path: Path) -> None:
    _query(path, "PRAGMA journal_mode = WAL")
    _others(path)


def _marked(path: Path) -> None:
    _query(path, "PRAGMA application_id = 7")


def _runtime(path: Path) -> None:
    _query(path, "CREATE TABLE runs (run_id TEXT PRIMARY KEY)")
    _query(path, "CREATE TABLE events (run_id TEXT, seq INTEGER)")


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (_text, "no SQLite database"),
            (_short_text, "no SQLite database"),
            (_others, "database of another program"),
            (_others_in_wal, "database of another program"),
            (_marked, "another program .0x00000007"),
            (_runtime, "a database of murmur-runtime, no store of murmur-streams"),
        ],
    )
    def test_what_is_not_ours_stays_as_it_is(
        self, path: Path, make: Callable[[Path], None], message: str
    ) -> None:
        """Text files and databases of others are refused, and not one byte changes."""
        make(path)
        before = _content(path)
        with pytest.raises(StoreConfigurationError, match=message):
            _open(path)
        assert _content(path) == before

    def test_what_another_program_has_open_stays_as_it_is(self, path: Path) -> None:
        """Also when its tables are still in its write-ahead log only."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE things (x)")
            before = _content(path)
            assert len(before) == 3, "the table is in the -wal file only"
            with pytest.raises(StoreConfigurationError, match="another program"):
                _open(path)
            assert _content(path) == before


class TestDamage:
    @pytest.mark.parametrize("size", [1, 50, 99, 100, 512, 4095, 4096, 5000, 40_000])
    def test_a_file_that_was_cut_off_is_damaged(self, path: Path, size: int) -> None:
        """At each length the error says so, and the file stays as it is."""
        _make(path)
        os.truncate(path, size)
        before = _content(path)
        with pytest.raises(StoreDamagedError, match="damaged"):
            _open(path)
        assert _content(path) == before

    @pytest.mark.parametrize(
        ("start", "error"),
        [
            (b"\0" * 16, StoreDamagedError),
            (b"\xff" * 16, StoreDamagedError),
            (b"\xff" * 100, StoreDamagedError),
            (b"\0" * 4096, StoreDamagedError),
            # The names of our tables are on the first page: without it nothing shows that
            # the file was a store.
            (b"\xff" * 4096, StoreConfigurationError),
        ],
    )
    def test_a_file_whose_header_is_destroyed_is_refused(
        self, path: Path, start: bytes, error: type[StoreError]
    ) -> None:
        """Where our tables are still visible it is damage, else a foreign file."""
        _make(path)
        path.write_bytes(start + path.read_bytes()[len(start) :])
        before = _content(path)
        with pytest.raises(StoreError) as raised:
            _open(path)
        assert type(raised.value) is error
        assert _content(path) == before

    def test_a_store_without_its_mark_gets_advice(self, path: Path) -> None:
        """The error has the PRAGMA that writes the mark of our files again."""
        _make(path)
        _query(path, "PRAGMA application_id = 0")
        with pytest.raises(StoreDamagedError, match="PRAGMA application_id = 1836413549"):
            _open(path)

    def test_an_empty_file_beside_its_log_is_damaged(self, path: Path) -> None:
        """An emptied file with a full log is not made into a new store."""
        _make(path)
        database = _open(path)
        write(database, created(a_run("r2")))
        log = Path(f"{path}-wal").read_bytes()
        database.close()
        path.write_bytes(b"")
        Path(f"{path}-wal").write_bytes(log)
        before = _content(path)
        with pytest.raises(StoreDamagedError, match="-wal"):
            _open(path)
        assert _content(path) == before


def _add_column(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE runs ADD COLUMN colour TEXT")


def _fail(connection: sqlite3.Connection) -> None:
    _add_column(connection)
    connection.execute("INSERT INTO nowhere VALUES (1)")


class TestVersions:
    def test_a_newer_version_asks_for_an_upgrade(self, path: Path) -> None:
        """A file of a newer schema is refused and not changed."""
        _make(path)
        _query(path, f"PRAGMA user_version = {NEWER}")
        before = _content(path)
        with pytest.raises(StoreConfigurationError, match="upgrade murmur-streams"):
            _open(path)
        assert _content(path) == before

    def test_a_version_that_no_release_wrote_is_refused(self, path: Path) -> None:
        """Version 0 with our mark raises StoreConfigurationError."""
        _make(path)
        _query(path, "PRAGMA user_version = 0")
        with pytest.raises(StoreConfigurationError, match="schema version 0"):
            _open(path)

    def test_an_older_version_is_migrated_once(self, path: Path) -> None:
        """The second opening finds the new version."""
        _make(path)
        for _ in range(2):
            database = _open(path, Schema(NEWER, {SCHEMA_VERSION: _add_column}))
            assert seqs(database)[-1] == 99
            database.close()
        assert _query(path, "PRAGMA user_version") == [(NEWER,)]
        assert _query(path, "SELECT colour FROM runs") == [(None,)]

    def test_a_migration_that_fails_leaves_the_old_version(self, path: Path) -> None:
        """Nothing of the failed step stays, and this release opens the file."""
        _make(path)
        with pytest.raises(Exception, match="nowhere"):
            _open(path, Schema(NEWER, {SCHEMA_VERSION: _fail}))
        with pytest.raises(sqlite3.OperationalError):
            _query(path, "SELECT colour FROM runs")
        database = _open(path)
        assert seqs(database)[-1] == 99
        database.close()

    def test_the_second_of_two_steps_that_fails_undoes_the_first(self, path: Path) -> None:
        """All steps of a migration are one transaction."""
        _make(path)
        steps = {SCHEMA_VERSION: _add_column, NEWER: _fail}
        with pytest.raises(Exception, match="colour"):
            _open(path, Schema(NEWER + 1, steps))
        assert _query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]

    def test_several_that_open_at_once_migrate_once(self, path: Path) -> None:
        """Of four threads that open the file, only one executes the step."""
        _make(path)
        crowd = 4
        barrier = Barrier(crowd)
        steps: list[int] = []

        def migration(connection: sqlite3.Connection) -> None:
            steps.append(1)
            _add_column(connection)

        def opens(_: int) -> None:
            barrier.wait()
            _open(path, Schema(NEWER, {SCHEMA_VERSION: migration})).close()

        with ThreadPoolExecutor(crowd) as pool:
            list(pool.map(opens, range(crowd)))
        assert steps == [1]
