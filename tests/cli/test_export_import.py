"""Runs that move from store to store through a file, as the shell sees it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from murmur_streams.cli.data.export_runs import read_whole
from murmur_streams.core.archive.lines import HEADER
from murmur_streams.core.model.errors import InvalidArchiveError
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.store import RedisRunStore
from tests.cli.conftest import CommandLine
from tests.cli.waiting import wait_until

RUNS = 40
STATES = list(RunState)
PIPE_BYTES = 65_536
"""The bytes that a pipe holds before they are read."""


@pytest.fixture
def filled(in_store: Any) -> None:
    """Runs of every state, each of some ten thousand bytes."""

    async def make(store: RedisRunStore, number: int) -> None:
        run_id, state = f"r-{number:03d}", STATES[number % len(STATES)]
        await store.create(run_id, "even" if number % 2 == 0 else "odd", input="é" * 5_000)
        event = RunEvent(type=RunEventType.CUSTOM, run_id=run_id, data={"text": "\u2028 😀"})
        await store.append(run_id, event, event)
        if state is RunState.RUNNING:
            await store.set_state(run_id, state)
        elif state.is_terminal:
            await store.finish(run_id, state)

    async def make_all(store: RedisRunStore) -> None:
        await asyncio.gather(*(make(store, number) for number in range(RUNS)))

    in_store(make_all)


@pytest.fixture(params=["prefix", "sqlite", "rocksdb"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The options that name another store."""
    if request.param == "prefix":
        return ["--prefix", "other"]
    if request.param == "rocksdb":
        pytest.importorskip("rocksdict")
    return ["--url", f"{request.param}:{tmp_path / 'elsewhere'}"]


@pytest.fixture
def exported(filled: None, line: CommandLine, tmp_path: Path) -> Path:
    """All of them in a file."""
    return export(line, tmp_path / "runs.ndjson")


def export(line: CommandLine, path: Path, *argv: str) -> Path:
    done = line.run("export", "-o", str(path), *argv)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return path


def answer(line: CommandLine, *argv: str, code: int = 0) -> dict[str, Any]:
    done = line.run(*argv, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def ids(path: Path) -> list[str]:
    rows = [json.loads(row) for row in path.read_bytes().splitlines()]
    return [row["run"] for row in rows if "run" in row]


def test_moved_runs_are_the_same_to_the_byte(
    line: CommandLine, exported: Path, target: list[str], tmp_path: Path
) -> None:
    """Exported again, they give the same file."""
    reported = answer(line, "import", str(exported), *target)
    assert (reported["runs"], reported["skipped"], reported["not_clean"]) == (RUNS, 0, [])
    assert reported["bytes"] == exported.stat().st_size
    assert "0 not clean" in line.run("audit", "--all", *target).stdout
    back = export(line, tmp_path / "back.ndjson", *target)
    assert back.read_bytes() == exported.read_bytes()
    again = answer(line, "import", str(exported), *target)
    assert (again["runs"], again["skipped"]) == (0, RUNS)


def test_runs_come_newest_first_and_through_stdin(line: CommandLine, exported: Path) -> None:
    """The order is that of `runs --all`, and `import -` reads stdin."""
    listed = line.run("runs", "--all", "--json").stdout.splitlines()
    assert ids(exported) == [json.loads(row)["run_id"] for row in listed]
    text = line.run("export").stdout
    assert text == exported.read_text(encoding="utf-8")
    done = line.run("import", "-", "--prefix", "other", stdin=text)
    assert done.stdout.startswith(f"imported {RUNS} runs, "), done.stderr


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["--state", "pending"], {f"r-{number:03d}" for number in range(0, RUNS, 5)}),
        (["--target", "odd"], {f"r-{number:03d}" for number in range(1, RUNS, 2)}),
        (["r-007", "r-003"], {"r-003", "r-007"}),
        (["--state", "failed", "--target", "nobody"], set[str]()),
    ],
)
def test_what_is_exported_can_be_chosen(
    line: CommandLine, tmp_path: Path, argv: list[str], wanted: set[str]
) -> None:
    """The selection is by state, target, both, or ids."""
    assert set(ids(export(line, tmp_path / "some", *argv))) == wanted


class Feed:
    """Writes a file's first bytes into a pipe, and keeps the pipe open."""

    def __init__(self, path: Path, data: bytes) -> None:
        os.mkfifo(path)
        self.path = path
        self._thread = threading.Thread(target=self._write, args=(data,), daemon=True)
        self._end = threading.Event()
        self._thread.start()
        self.is_written = threading.Event()

    def _write(self, data: bytes) -> None:
        with self.path.open("wb", buffering=0) as pipe:
            view = memoryview(data)
            while view:
                view = view[pipe.write(view) :]
            self.is_written.set()
            self._end.wait(60)

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def half(exported: Path, tmp_path: Path) -> Iterator[Feed]:
    """A pipe that gives an import the first part of the file, and then nothing."""
    data = exported.read_bytes()
    feed = Feed(tmp_path / "pipe", data[: len(data) * 2 // 3])
    assert len(data) * 2 // 3 > 3 * PIPE_BYTES, "some of it must have been taken from the pipe"
    yield feed
    feed.close()


@pytest.mark.slow
def test_an_import_that_was_killed_is_simply_done_again(
    line: CommandLine, exported: Path, half: Feed, target: list[str], tmp_path: Path
) -> None:
    """Runs that are there are skipped."""
    process = line.start("import", str(half.path), *target)
    assert half.is_written.wait(60)
    process.kill()
    process.wait()
    reported = answer(line, "import", str(exported), *target)
    assert reported["runs"] + reported["skipped"] == RUNS
    assert reported["skipped"] > 0
    assert "0 not clean" in line.run("audit", "--all", *target).stdout
    back = export(line, tmp_path / "back.ndjson", *target)
    assert back.read_bytes() == exported.read_bytes()


def test_ctrl_c_ends_an_import_that_waits_for_its_pipe(
    line: CommandLine, exported: Path, half: Feed
) -> None:
    """Exit code 130, with the way to go on."""
    process = line.start("import", str(half.path), "--prefix", "other")
    assert half.is_written.wait(60)
    process.send_signal(signal.SIGINT)
    _, reported = process.communicate(timeout=30)
    assert process.returncode == 130, reported
    assert "interrupted after" in reported
    assert "import it again" in reported
    assert "Traceback" not in reported
    again = answer(line, "import", str(exported), "--prefix", "other")
    assert again["runs"] + again["skipped"] == RUNS


@pytest.fixture
def many(in_store: Any) -> None:
    """So many runs that an export can be caught in the middle."""

    async def make(store: RedisRunStore) -> None:
        for start in range(0, 2_000, 200):
            numbers = range(start, start + 200)
            await asyncio.gather(*(store.create(f"r-{number}", "t") for number in numbers))

    in_store(make)


@pytest.mark.slow
@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_export_that_was_stopped_goes_on_in_its_file(
    line: CommandLine, tmp_path: Path, how: signal.Signals
) -> None:
    """After a kill or Ctrl-C, `--resume` completes the file."""
    path = tmp_path / "runs of mine"
    process = line.start("export", "-o", str(path))
    wait_until(lambda: path.exists() and path.stat().st_size > 5_000, "some runs are written")
    process.send_signal(how)
    _, reported = process.communicate(timeout=30)
    assert process.returncode == (130 if how is signal.SIGINT else -signal.SIGKILL), reported
    if how is signal.SIGINT:
        assert f"go on with: murmur-streams export --resume -o '{path}'" in reported
        assert "Traceback" not in reported
    before = len(ids(path)) if how is signal.SIGINT else 0
    rest = answer(line, "export", "--resume", "-o", str(path))
    assert rest["runs"] + rest["skipped"] == 2_000
    assert rest["skipped"] >= max(before, 1)
    assert path.read_bytes() == export(line, tmp_path / "at once").read_bytes()


def test_an_export_goes_on_from_wherever_it_was_torn(
    line: CommandLine, exported: Path, tmp_path: Path
) -> None:
    """A file that was cut anywhere, at each of these bytes, is completed to the same bytes."""
    whole, torn = exported.read_bytes(), tmp_path / "torn"
    for cut in (0, 1, 20, 36, 60, 83, 84, 85, 150, 10_300, 10_600, -1, -50, None):
        torn.write_bytes(whole[:cut])
        export(line, torn, "--resume")
        assert torn.read_bytes() == whole, f"torn at {cut}"


def test_a_resumed_export_of_named_runs_adds_the_missing_ones(
    line: CommandLine, exported: Path, tmp_path: Path
) -> None:
    """Each run is in the file once."""
    path = export(line, tmp_path / "some", "r-004", "r-002")
    export(line, path, "r-004", "r-009", "r-002", "r-009", "--resume")
    assert ids(path) == ["r-004", "r-002", "r-009"]


def test_a_run_that_is_named_twice_is_written_once(
    line: CommandLine, filled: None, tmp_path: Path
) -> None:
    """The runs are in the order in which they were named."""
    assert ids(export(line, tmp_path / "some", "r-004", "r-002", "r-004")) == ["r-004", "r-002"]


def test_what_is_no_torn_export_is_not_touched(exported: Path, tmp_path: Path) -> None:
    """`--resume` refuses other files, and does not change them."""
    data = exported.read_bytes()
    for content in (b"my diary", b"my diary\n", data.replace(b"run", b"ruin", 2), data + b"{\n"):
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(InvalidArchiveError, match="another file"):
            read_whole(path, frozenset())
        assert path.read_bytes() == content


def test_ids_of_other_runs_are_listed_at_the_end(
    line: CommandLine, exported: Path, in_store: Any
) -> None:
    """Exit code 1; --skip-existing accepts them."""
    line.run("submit", "researcher", "{}", "--run-id", "r-010", "--prefix", "other")
    done = line.run("import", str(exported), "--prefix", "other")
    assert done.returncode == 1
    assert f"imported {RUNS - 1} runs" in done.stdout
    assert "other runs here have these ids: r-010" in done.stderr
    accepted = answer(line, "import", str(exported), "--prefix", "other", "--skip-existing")
    assert (accepted["taken"], accepted["older"]) == (["r-010"], [])
    assert accepted["skipped"] == RUNS - 1
    assert accepted["bytes"] == exported.stat().st_size
    shown = line.run("import", str(exported), "--prefix", "other", "--skip-existing").stdout
    assert shown.startswith("imported 0 runs, 0 entries, "), shown
    assert " kB read, 39 there already in " in shown


def test_an_older_copy_of_a_run_differs_from_another_run(
    line: CommandLine, in_store: Any, tmp_path: Path
) -> None:
    """The message says which of the two it is."""
    in_store(lambda store: store.create("r-1", "t"))
    first = line.run("import", str(export(line, tmp_path / "then")), "--prefix", "other")
    assert first.stdout.startswith("imported 1 run, 1 entry, "), first.stderr
    in_store(lambda store: store.set_state("r-1", RunState.RUNNING))
    newer = str(export(line, tmp_path / "now"))
    done = line.run("import", newer, "--prefix", "other")
    assert (done.returncode, "an older copy of each is here" in done.stderr) == (1, True)
    assert "other runs" not in done.stderr
    reported = answer(line, "import", newer, "--prefix", "other", code=1)
    assert (reported["taken"], reported["older"]) == ([], ["r-1"])


def test_a_file_that_lacks_only_its_last_newline_is_whole(
    line: CommandLine, exported: Path
) -> None:
    """All runs are imported."""
    reported = answer(line, "import", str(cut_off(exported)), "--prefix", "other")
    assert (reported["runs"], reported["bytes"]) == (RUNS, exported.stat().st_size)
    empty = line.run("import", stdin=HEADER.strip())
    assert (empty.returncode, empty.stdout[:16]) == (0, "imported 0 runs,"), empty.stderr


def cut_off(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-1])
    return path


def test_a_damaged_file_is_refused_where_the_damage_is(line: CommandLine, exported: Path) -> None:
    """Runs before it are imported."""
    rows = exported.read_bytes().splitlines(keepends=True)
    rows[8] = rows[8].replace(b"custom", b"CUSTOM", 1)
    bad = exported.with_name("bad")
    bad.write_bytes(b"".join(rows))
    done = line.run("import", str(bad), "--prefix", "other")
    assert done.returncode == 2
    assert f"{bad}: line 10 is wrong: the run's lines are not those that were" in done.stderr
    assert "imported 2 runs" in done.stderr
    assert "import it again" not in done.stderr
    assert len(line.run("runs", "--all", "--json", "--prefix", "other").stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "stdin: the first line is missing"),
        ("hello\n", "stdin: line 1 is wrong: this is not an export of runs"),
        (HEADER.replace("1", "9"), "upgrade murmur-streams"),
        (HEADER + '{"run":"r","epoch":"0badcafe"}\n', "the rest of run 'r' is missing"),
        (HEADER + '{"run":"r"', "line 2 is cut off"),
    ],
)
def test_what_is_no_export_is_refused(line: CommandLine, text: str, what: str) -> None:
    """The error names the line and the fault."""
    done = line.run("import", stdin=text)
    assert (done.returncode, what in done.stderr) == (2, True), done.stderr


def test_a_damaged_run_is_left_out_and_named(
    line: CommandLine, filled: None, in_store: Any, tmp_path: Path
) -> None:
    """Exit code 1; the other runs are exported."""

    async def damage(store: RedisRunStore) -> None:
        entries = [entry.id async for entry in store.journal("r-003")]
        await store.client.xdel(store._keys.journal("r-003"), entries[1])

    in_store(damage)
    path = tmp_path / "runs"
    done = line.run("export", "-o", str(path))
    assert done.returncode == 1
    assert "run r-003 is damaged and left out: " in done.stderr
    assert len(ids(path)) == RUNS - 1


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["export", "--resume"], "-o FILE"),
        (["export", "r-1", "--state", "failed"], "name runs, or choose them"),
        (["export", "r-1", "-o", "new"], "not found"),
        (["export", "-o", "there"], "is there already"),
        (["export", "-o", "nowhere/file"], "No such file"),
        (["export", "--server", "http://localhost:1"], "looks into the store"),
        (["import", "nothing"], "nothing: No such file"),
        (["import", "."], "Is a directory"),
        (["import", "there", "--url", "memory:"], "memory: lives inside one process"),
    ],
)
def test_what_cannot_be_is_refused(
    line: CommandLine, tmp_path: Path, argv: list[str], what: str
) -> None:
    """Options that contradict each other, and existing files, end with exit code 2."""
    (tmp_path / "there").write_text("mine")
    done = line.run(*argv, cwd=tmp_path)
    assert (done.returncode, what in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "there").read_text() == "mine"


@pytest.mark.parametrize(("command", "what"), [("export", "not a terminal"), ("import", "FILE")])
def test_an_export_to_a_terminal_is_refused(data_dir: Path, command: str, what: str) -> None:
    """So is an import from a terminal."""
    ours, theirs = os.openpty()
    ends: dict[str, Any] = {"stdout" if command == "export" else "stdin": theirs}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "murmur_streams", command],
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            **ends,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, what in done.stderr) == (2, True), done.stderr


def test_who_reads_no_more_ends_an_export_in_silence(line: CommandLine, filled: None) -> None:
    """When the reader of the pipe ends, the exit code is 141 and stderr is empty."""
    process = line.start("export")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(30)
    assert process.stderr is not None
    assert (process.returncode, process.stderr.read()) == (141, "")
