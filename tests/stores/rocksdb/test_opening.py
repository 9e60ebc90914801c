import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rocksdict import Options, Rdict, WriteBatch

from murmur_streams.core.model.errors import StoreConfigurationError, StoreDamagedError
from murmur_streams.stores.local.rocksdb import keys, opening
from murmur_streams.stores.local.rocksdb.binding import View
from murmur_streams.stores.local.rocksdb.open_folder import FAMILY, OpenFolder
from tests.stores.rocksdb.folders import contents, only
from tests.stores.rocksdb.making import created, new_run, opened

OTHER_USER = 65534
HOLDER = """
import sys
from pathlib import Path
from tests.stores.rocksdb.making import opened
database = opened(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def foreign(path: Path, *names: bytes) -> None:
    database = Rdict(str(path), Options(raw_mode=True))
    for name in names:
        database[name] = b"{}"
    database.close()


@pytest.mark.parametrize("exists", [True, False])
def test_a_missing_or_empty_folder_becomes_a_store(tmp_path: Path, exists: bool) -> None:
    """Opening creates the store, and a second opening finds it."""
    path = tmp_path / "store"
    if exists:
        path.mkdir()
    opened(path).close()
    database = opened(path)
    database.commit(created(new_run("run")))
    database.close()
    assert opened(path).stored("run")


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    """A folder whose parent does not exist is not created."""
    with pytest.raises(StoreConfigurationError, match="none does not exist"):
        opened(tmp_path / "none" / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_refused(tmp_path: Path) -> None:
    """A path that is a file is refused, and the file stays."""
    (tmp_path / "store").write_text("text")
    with pytest.raises(StoreConfigurationError, match="is a file"):
        opened(tmp_path / "store")
    assert (tmp_path / "store").read_text() == "text"


@pytest.mark.parametrize("name", ["x" * 300, "x\0y"], ids=["long", "nul"])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path, name: str) -> None:
    """A name that is too long, or has a zero byte, raises StoreConfigurationError."""
    with pytest.raises(StoreConfigurationError, match="cannot be opened"):
        opened(tmp_path / name)


def test_a_relative_path_from_a_deleted_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that the process works in is gone, so the error asks for an absolute path."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreConfigurationError, match="absolute path"):
        opened(Path("store"))


def test_where_no_links_can_be_made_a_store_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no symbolic links; the store does not depend on them."""
    path = tmp_path / "store"
    opened(path).close()
    monkeypatch.setattr(Path, "symlink_to", unsupported)
    opened(path).close()


def unsupported(*_: object) -> None:
    raise OSError(1, "Operation not permitted")


def test_a_folder_opened_during_the_check_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process opens it while it is checked: that is not reported as damage."""
    path = tmp_path / "store"
    opened(path).close()
    holders = iter([None, 4711])
    monkeypatch.setattr(opening, "_holder", lambda _: next(holders))
    only(path, "MANIFEST-*").unlink()
    with pytest.raises(StoreConfigurationError, match="process 4711 has it"):
        opened(path)


def test_a_folder_of_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    """The error names one of the other files."""
    (tmp_path / "letter.txt").write_text("text")
    with pytest.raises(StoreConfigurationError, match=r"other files \(letter.txt\)"):
        opened(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([b"r/one", b"e/one/1"], "murmur-runtime"),
        ([b"anything"], "another program"),
    ],
)
def test_a_foreign_rocksdb_is_refused_and_untouched(
    tmp_path: Path, names: list[bytes], message: str
) -> None:
    """The error says whose database it seems to be, and no file changes."""
    path = tmp_path / "store"
    foreign(path, *names)
    before = contents(path)
    with pytest.raises(StoreConfigurationError, match=message) as caught:
        opened(path)
    assert str(path) in str(caught.value)
    assert contents(path) == before


def test_a_foreign_rocksdb_with_rows_only_in_its_log_stays(tmp_path: Path) -> None:
    """It is recognized as another program's database, and no file of it changes."""
    living = Rdict(str(tmp_path / "living"), Options(raw_mode=True))
    living[b"key"] = b"value"
    path = tmp_path / "store"
    path.mkdir()
    for each in (tmp_path / "living").iterdir():
        if each.name != "LOCK":
            (path / each.name).write_bytes(each.read_bytes())
    before = contents(path)
    with pytest.raises(StoreConfigurationError, match="another program"):
        opened(path)
    assert contents(path) == before
    living.close()


def test_a_rocksdb_without_a_row_becomes_a_store(tmp_path: Path) -> None:
    """An empty database of another tool may be used."""
    foreign(tmp_path / "store")
    database = opened(tmp_path / "store")
    database.commit(created(new_run("run")))
    database.close()


def test_what_a_killed_maker_left_becomes_a_store(tmp_path: Path) -> None:
    """Files of a process that was killed while it created the store do no harm."""
    path = tmp_path / "store"
    path.mkdir()
    for name in ("LOCK", "LOG", "IDENTITY", "MANIFEST-000001", "rocksdict-config.json"):
        (path / name).touch()
    opened(path).close()


def test_a_second_store_in_this_process_is_refused(tmp_path: Path) -> None:
    """The error says that the folder is for one process; the first store goes on."""
    path = tmp_path / "store"
    database = opened(path)
    with pytest.raises(StoreConfigurationError, match="is for one process") as caught:
        opened(path)
    assert str(path) in str(caught.value)
    database.commit(created(new_run("run")))
    database.close()
    opened(path).close()


@pytest.mark.fault("F43")
def test_a_second_process_is_refused_with_the_holders_number(tmp_path: Path) -> None:
    """The error names the process that has the folder open, and other kinds of stores."""
    path = tmp_path / "store"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        before = contents(path)
        with pytest.raises(StoreConfigurationError, match=r"sqlite: or redis: URL") as caught:
            opened(path)
        if Path("/proc/locks").exists():
            assert f"process {holder.pid} has it" in str(caught.value)
            assert contents(path) == before
        holder.communicate()
    opened(path).close()


def test_the_lock_refuses_where_the_holder_is_unknown(tmp_path: Path) -> None:
    """RocksDB's own lock is enough where the system does not show who holds it."""
    path = tmp_path / "store"
    database = opened(path)
    with pytest.raises(StoreConfigurationError, match="is for one process"):
        OpenFolder(path)
    database.close()


@contextmanager
def somebody_else() -> Generator[None]:
    """Root may write everywhere, so it is not root for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_without_permission_is_refused() -> None:
    """Where the user may not write, the error says so and nothing is created."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with (
            somebody_else(),
            pytest.raises(StoreConfigurationError, match="cannot be made"),
        ):
            opened(folder / "store")
        assert not (folder / "store").exists()
        folder.chmod(0o755)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """The error asks for an upgrade, and no file changes."""
    path = tmp_path / "store"
    handle = OpenFolder(path)
    opening.migrate(handle, version=2, migrations={})
    handle.close()
    before = contents(path)
    with pytest.raises(StoreConfigurationError, match=r"of version 2, .* upgrade"):
        opened(path)
    assert contents(path) == before


@pytest.mark.parametrize("row", [b"one", None])
def test_rows_without_a_readable_version_are_damage(tmp_path: Path, row: bytes | None) -> None:
    """Nothing is written to a folder whose schema version is missing or unreadable."""
    path = tmp_path / "store"
    handle = OpenFolder(path)
    handle.family[keys.SCHEMA if row else keys.run("run")] = row or b"{}"
    handle.close()
    before = contents(path)
    with pytest.raises(StoreDamagedError, match="version"):
        opened(path)
    assert contents(path) == before


def put(key: bytes, value: bytes) -> opening.Step:
    def step(view: View, batch: WriteBatch) -> None:
        batch[key] = (view.get(key) or b"") + value

    return step


def fail(view: View, batch: WriteBatch) -> None:
    batch[b"half"] = b"done"
    raise ZeroDivisionError


def test_an_old_version_is_migrated_step_by_step(tmp_path: Path) -> None:
    """Each missing step is applied once, in order."""
    handle = OpenFolder(tmp_path / "store")
    opening.migrate(handle)
    steps = {1: put(b"x", b"1"), 2: put(b"x", b"2")}
    opening.migrate(handle, version=3, migrations=steps)
    opening.migrate(handle, version=3, migrations=steps)
    assert handle.family[b"x"] == b"12"
    assert handle.family[keys.SCHEMA] == b"3"
    handle.close()


def test_a_failing_step_changes_nothing(tmp_path: Path) -> None:
    """The step before it stays applied; the failed one leaves nothing behind."""
    handle = OpenFolder(tmp_path / "store")
    opening.migrate(handle)
    with pytest.raises(ZeroDivisionError) as raised:
        opening.migrate(handle, version=3, migrations={1: put(b"x", b"1"), 2: fail})
    handle.close()
    handle = OpenFolder(tmp_path / "store")
    assert handle.family.get(b"half") is None
    assert handle.family[keys.SCHEMA] == b"2"
    opening.migrate(handle, version=3, migrations={2: put(b"x", b"2")})
    assert handle.family[b"x"] == b"12"
    assert raised.traceback
    handle.close()


def test_without_rocksdict_the_extra_is_named() -> None:
    """The ImportError has the pip command to type."""
    program = (
        "import sys; sys.modules['rocksdict'] = None\n"
        "import murmur_streams.stores.local.rocksdb.opening"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install 'murmur-streams[rocksdb]'" in done.stderr.splitlines()[-1]


def test_a_folder_is_known_by_its_column_family(tmp_path: Path) -> None:
    """Our column family distinguishes the folder from databases of others."""
    opened(tmp_path / "store").close()
    assert FAMILY in Rdict.list_cf(str(tmp_path / "store"))
