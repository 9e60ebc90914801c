"""An export that stopped: what it says, and with which file another one goes on."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from murmur_streams import RunState, SQLiteRunStore
from murmur_streams.cli.data.export_runs import read_whole
from murmur_streams.cli.shell.app import app
from murmur_streams.core.archive.lines import HEADER
from tests.cli.conftest import CommandLine
from tests.cli.waiting import wait_until

RUNS = 12


def fill(path: Path, first: str = "r", size: int = 3_000) -> str:
    """Make a store with runs of two agents, each of so many bytes; its URL."""

    async def make() -> None:
        async with SQLiteRunStore(path) as store:
            for number in range(RUNS):
                run_id = f"{first}-{number:02d}"
                await store.create(run_id, "odd" if number % 2 else "even", input="x" * size)

    asyncio.run(make())
    return f"sqlite:{path}"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return fill(tmp_path / "runs.db")


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The URL of a store with other runs, which are older than those of ``url``."""
    return fill(tmp_path / "other.db", "other")


def export(*argv: str) -> Result:
    return CliRunner().invoke(app, ["export", *argv])


def torn(url: str, path: Path, *argv: str) -> Path:
    """Half an export."""
    assert export("--url", url, "-o", str(path), *argv).exit_code == 0
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def refused(path: Path, *argv: str) -> str:
    """The message of a resumed export that does not change the file."""
    before = path.read_bytes()
    result = export("--resume", "-o", str(path), *argv)
    assert (result.exit_code, path.read_bytes()) == (2, before), result.output
    return result.stderr


def with_old_header(path: Path) -> Path:
    """The file as a release wrote it whose first line did not say what was asked for."""
    _, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(HEADER.encode() + rest)
    return path


def test_the_first_line_names_the_selection(url: str, tmp_path: Path) -> None:
    """It has the state, the target, and whether ids were named."""
    for name, argv, of in (
        ("all", [], {"state": None, "target": None, "ids": False}),
        ("some", ["--state", "pending"], {"state": "pending", "target": None, "ids": False}),
        ("odd", ["--target", "odd"], {"state": None, "target": "odd", "ids": False}),
        ("two", ["r-01", "r-02"], {"state": None, "target": None, "ids": True}),
    ):
        assert export("--url", url, "-o", str(tmp_path / name), *argv).exit_code == 0
        with (tmp_path / name).open() as lines:
            assert json.loads(next(lines)) == {"murmur_streams": "runs", "format": 1, "of": of}
        imported = CliRunner().invoke(app, ["import", str(tmp_path / name), "--url", url])
        assert imported.exit_code == 0, imported.output


@pytest.mark.parametrize("argv", [[], ["--target", "odd"], ["r-03", "r-01", "r-09", "r-02"]])
def test_it_goes_on_with_the_same_store_and_options(
    url: str, tmp_path: Path, argv: list[str]
) -> None:
    """The file is as if it had not stopped."""
    path = torn(url, tmp_path / "file", *argv)
    assert export("--url", url, "--resume", "-o", str(path), *argv).exit_code == 0
    assert export("--url", url, "-o", str(tmp_path / "whole"), *argv).exit_code == 0
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("is_old", [False, True])
def test_it_does_not_go_on_in_another_store(
    url: str, other: str, tmp_path: Path, *, is_old: bool
) -> None:
    """The error names the options to check."""
    path = torn(url, tmp_path / "file")
    said = refused(with_old_header(path) if is_old else path, "--url", other)
    assert "is not in this store: go on with the --url and --prefix" in said
    assert "no store exists at" in refused(path, "--url", f"sqlite:{tmp_path}/typo.db")


def test_another_life_of_an_id_is_not_the_run_of_the_file(url: str, tmp_path: Path) -> None:
    """The file has the epoch of each run, which is compared."""
    path = torn(url, tmp_path / "file")
    twin = fill(tmp_path / "twin.db")
    assert "is not in this store" in refused(path, "--url", twin)


@pytest.mark.parametrize(
    ("first", "then", "what"),
    [
        (["--target", "odd"], [], "an export of --target odd, and this command asks for all runs"),
        ([], ["--target", "odd"], "an export of all runs, and this command asks for --target odd"),
        (["--state", "pending"], ["--state", "failed"], "asks for --state failed"),
        (
            ["r-03", "r-04", "r-06"],
            [],
            "an export of named runs, and this command asks for all runs",
        ),
        (["r-03", "r-04", "r-06"], ["r-05"], "r-03, is not one of those that this command exports"),
    ],
)
def test_it_does_not_go_on_with_another_listing(
    url: str, tmp_path: Path, first: list[str], then: list[str], what: str
) -> None:
    """The error names both selections."""
    path = torn(url, tmp_path / "file", *first)
    assert what in refused(path, "--url", url, *then)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (["--target", "odd"], ["--target", "even"]),
        (["--state", "pending"], ["--state", "failed"]),
        (["r-03", "r-04", "r-06"], ["r-05"]),
    ],
)
def test_a_file_without_a_selection_is_judged_by_its_last_run(
    url: str, tmp_path: Path, first: list[str], then: list[str]
) -> None:
    """Earlier versions wrote files without one."""
    path = with_old_header(torn(url, tmp_path / "file", *first))
    said = refused(path, "--url", url, *then)
    assert "is not one of those that this command exports" in said
    assert export("--url", url, "--resume", "-o", str(path), *first).exit_code == 0
    assert path.read_bytes().startswith(HEADER.encode())


def test_a_run_that_left_its_state_meanwhile_does_not_stop_it(url: str, tmp_path: Path) -> None:
    """The resumed export completes the file with all runs."""
    path = torn(url, tmp_path / "file", "--state", "pending")
    last = read_whole(path, frozenset()).last
    assert last is not None

    async def end() -> None:
        async with SQLiteRunStore(url.removeprefix("sqlite:")) as store:
            await store.finish(last.run_id, RunState.COMPLETED)

    asyncio.run(end())
    done = export("--url", url, "--resume", "-o", str(path), "--state", "pending")
    assert done.exit_code == 0, done.output
    assert read_whole(path, frozenset()).runs == RUNS


def test_a_full_disk_is_reported_with_the_command_to_resume(tmp_path: Path) -> None:
    """The exit code is 2, and the printed command completes the file."""
    url, path = fill(tmp_path / "large.db", size=30_000), tmp_path / "file"
    argv = ["export", "--url", url, "--state", "pending", "-o", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "murmur_streams", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=_no_large_files,  # no threads are started before exec
    )
    assert done.returncode == 2, done.stderr
    progress, error = done.stderr.splitlines()
    assert error == f"murmur-streams: {path}: File too large"
    begin, _, line = progress.partition("; go on with: ")
    assert begin.startswith("interrupted after 5 runs, 5 entries, ")
    assert line == (f"murmur-streams export --url {url} --state pending --resume -o {path}")
    assert export(*line.split()[2:]).exit_code == 0
    assert read_whole(path, frozenset()).runs == RUNS


def _no_large_files() -> None:
    # As a full disk does, it refuses a write; the error's name is all that differs.
    resource.setrlimit(resource.RLIMIT_FSIZE, (160_000, 160_000))


def test_a_full_stdout_is_reported_in_a_sentence(url: str) -> None:
    """No traceback is printed."""
    if not os.path.exists("/dev/full"):  # noqa: PTH110  # a device of Linux
        pytest.skip("this machine has no /dev/full")
    with open("/dev/full", "wb") as full:  # noqa: PTH123  # likewise
        done = subprocess.run(
            [sys.executable, "-m", "murmur_streams", "export", "--url", url],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "murmur-streams: stdout: No space left on device\n",
    )


def test_the_line_that_goes_on_names_the_store_as_it_was_given(
    line: CommandLine, tmp_path: Path
) -> None:
    """The printed command has the same options."""
    url, path = f"sqlite:{tmp_path}/many.db", tmp_path / "file"

    async def make() -> None:
        async with SQLiteRunStore(tmp_path / "many.db") as store:
            for start in range(0, 6_000, 500):
                numbers = range(start, start + 500)
                await asyncio.gather(*(store.create(f"r-{number}", "t") for number in numbers))

    asyncio.run(make())
    process = line.start("export", "--url", url, "--target", "t", "-o", str(path))
    wait_until(lambda: path.exists() and path.stat().st_size > 5_000, "some runs are written")
    process.send_signal(signal.SIGINT)
    _, reported = process.communicate(timeout=30)
    assert process.returncode == 130, reported
    assert f"murmur-streams export --url {url} --target t --resume -o {path}\n" in reported


@pytest.mark.parametrize("argv", [[], ["--resume"]])
def test_only_a_file_can_be_written_and_gone_on_with(
    url: str, tmp_path: Path, argv: list[str]
) -> None:
    """Folders and pipes are refused."""
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("", "is a folder: name a file in it"), ("pipe", "is a pipe or a device")):
        done = export("--url", url, "-o", str(tmp_path / name), *argv)
        assert (done.exit_code, what in done.stderr) == (2, True), done.output


def test_what_is_asked_for_is_checked_before_there_is_a_file(url: str, tmp_path: Path) -> None:
    """A wrong option does not create the file."""
    done = export("--url", url, "--target", "no agent", "-o", str(tmp_path / "file"))
    assert done.exit_code == 2
    assert not (tmp_path / "file").exists()
