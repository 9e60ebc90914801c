"""docs/moving.md: its lines move runs, its program runs, its table agrees with the format."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from murmur_streams.core.archive.lines import header, lines
from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.embedded import stop_server
from murmur_streams.testing.archives import held_run
from tests.docs.pages import DocsPage, named
from tests.key_audit import audit_folder

PAGE = DocsPage("moving.md")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for the page's files; the embedded server beside it is stopped."""
    folder = tmp_path / "here"
    folder.mkdir()
    yield folder
    try:
        audit_folder(tmp_path / "data")
    finally:
        stop_server(tmp_path / "data")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MURMUR_")}
    path = f"{BIN}{os.pathsep}{environ['PATH']}"
    return subprocess.run(  # the page's own commands
        command,
        cwd=folder,
        env={**environ, "MURMUR_DATA_DIR": str(folder.parent / "data"), "PATH": path},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.slow
def test_the_lines_of_the_page_move_runs(folder: Path) -> None:
    """The blocks for a shell are executed one after the other."""
    for number in range(3):
        done = run(folder, "murmur-streams", "submit", "researcher", "--run-id", f"r-{number}")
        assert done.returncode == 0, done.stderr
    assert run(folder, "murmur-streams", "cancel", "r-0").returncode == 0
    done = run(folder, "sh", "-eu", "-c", "".join(blocks("sh")))
    assert done.returncode == 0, done.stderr
    copied, *_, archived = done.stdout.splitlines()
    assert copied.startswith("imported 3 runs, ")
    assert "3 runs audited, 0 not clean" in done.stdout
    assert json.loads(archived)["runs"] == 3


def test_the_program_of_the_page_restores_a_run_once(folder: Path) -> None:
    """It prints what the page says."""
    (program,) = blocks("python")
    (folder / "copy_runs.py").write_text(program, encoding="utf-8")
    for _ in range(2):
        done = run(folder, sys.executable, "-W", "error", "copy_runs.py")
        assert (done.returncode, done.stdout) == (0, "True False\n()\n"), done.stderr


def test_every_command_of_the_page_is_one() -> None:
    """Each line for a shell is a command with options that exist."""
    PAGE.check_commands(least=5)


def test_the_table_is_that_of_the_format() -> None:
    """The table has each member of each kind of line."""
    first, run_line, entries, end = PAGE.table("line")
    archive: RunArchive = held_run("r")
    written = [json.loads(text) for text in (header({}), *lines(archive))]
    for (_, members), value in zip((first, run_line, entries, end), written, strict=True):
        assert set(value) <= set(named(members))
