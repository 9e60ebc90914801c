"""The demo as a whole, in a process of its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import CommandLine


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A corpus with everything that a parser may be given."""
    root = tmp_path / "sources"
    (root / "package").mkdir(parents=True)
    (root / "package" / "good.py").write_text("import os\n\n\ndef f():\n    return 1\n")
    (root / "package" / "null.py").write_bytes(b"a = 1\0")
    (root / "package" / "deep.py").write_text("-" * 200_000 + "1")
    (root / "latin.py").write_bytes(b"x = '\xe9'\n")
    (root / "es\x1bc.py").write_text("def f(:\n")
    (root / "gone.py").symlink_to(root / "nowhere.py")
    return root


def test_it_proves_itself_on_hostile_files(line: CommandLine, sources: Path) -> None:
    """The last line says that the proof holds."""
    shown = line.run("demo", str(sources))
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for text in (
        "unparsable files: 5",
        "package/good.py:1  os",
        "0 missing, 0 twice, 0 out of order",
        "2 of 2 runs clean",
        "$ murmur-streams redis HGETALL",
        "The proof holds.",
    ):
        assert text in shown.stdout
    assert "\x1b" not in shown.stdout


@pytest.mark.slow  # a whole demo more, for its other form of output
def test_json_is_one_object_on_stdout(line: CommandLine, sources: Path) -> None:
    """The object has the numbers of the proof."""
    shown = line.run("demo", str(sources), "--json")
    found = json.loads(shown.stdout)
    assert (found["holds"], len(found["runs"])) == (True, 2)
    assert found["proof"]["seen"] == found["proof"]["events"] > 0


@pytest.mark.slow
def test_a_worker_is_killed_and_a_subscriber_is_cut(
    line: CommandLine,
) -> None:
    """Both happen in each demo."""
    found = json.loads(line.run("demo", "--json").stdout)
    assert found["holds"] is True
    assert found["killed"] is not None
    assert found["taken_over"]
    assert found["cut"] in found["runs"]
    assert found["seconds"] < 60


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_worker_and_no_work(
    line: CommandLine, number: signal.Signals
) -> None:
    """Exit code 130, and no process is left."""
    process = line.start("demo")
    assert process.stdout is not None
    while "killed" not in process.stdout.readline():
        assert process.poll() is None
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert [worker for worker in workers if worker.is_running()] == []
    base = "murmur:demo:{0}"
    for state in ("pending", "running"):
        counted = line.run("redis", "ZCARD", f"{base}:index:state:{state}")
        assert counted.stdout == "0\n"
