"""docs/stores.md: its programs run, and its numbers and options agree with the code."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from murmur_streams.stores.local.engine.file_store import FileRunStore
from murmur_streams.stores.local.engine.store import LocalOptions, LocalRunStore
from murmur_streams.stores.local.sqlite.store import LOOK_SECONDS, SQLiteRunStore
from tests.docs.pages import DocsPage, named

PAGE = DocsPage("stores.md")
PROGRAMS = re.findall(r"^```python\n(# (\w+)\.py\n.*?)^```", PAGE.text, re.DOTALL | re.MULTILINE)
PRINTED = {
    "on_disk": "[1]\ncompleted\n",
    "one_process": "Hello, Ada!\n",
}


@pytest.mark.parametrize("name", [name for _, name in PROGRAMS])
def test_the_programs_of_the_page_print_what_they_should(name: str, tmp_path: Path) -> None:
    """A second execution on the same data prints the same."""
    text = next(text for text, each in PROGRAMS if each == name)
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", f"{name}.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, PRINTED[name]), done.stderr


def test_every_program_of_the_page_is_run() -> None:
    """A new program needs its expected output."""
    assert sorted(name for _, name in PROGRAMS) == sorted(PRINTED)


def test_the_options_that_it_names_are_those_of_a_store() -> None:
    """The sentence has all of them."""
    sentence = re.search(r"A store takes\n(.+?) as every other does, and `sync`", PAGE.text)
    assert sentence is not None
    assert sorted(named(sentence[1])) == sorted(LocalOptions.__annotations__)
    assert sorted(LocalOptions.__annotations__) == sorted(
        inspect.signature(LocalRunStore).parameters
    )
    assert "sync" in inspect.signature(FileRunStore).parameters


def test_the_delay_on_the_page_is_that_of_the_store() -> None:
    """The number stands in the code, too."""
    assert f"at most {LOOK_SECONDS * 1000:.0f} ms and one read later" in PAGE.text
    assert SQLiteRunStore.look_seconds == LOOK_SECONDS
    assert FileRunStore.look_seconds is None


def test_its_commands_are_commands() -> None:
    """Each line for a shell is a command with options that exist."""
    PAGE.check_commands(least=4)
    assert "murmur-streams audit --all --url sqlite:runs.db" in PAGE.text
    assert "[docs/moving.md]" in PAGE.text or "(moving.md)" in PAGE.text
