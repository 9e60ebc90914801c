"""From a folder to runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.code_review.files import find_corpus
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.limits import check_run_id


def write(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    return root


def batches(root: Path) -> dict[str, tuple[str, ...]]:
    return {batch.name: batch.files for batch in find_corpus(root).batches}


def test_a_package_is_a_run_and_modules_share_one(tmp_path: Path) -> None:
    """Files of a folder with __init__ go together."""
    root = write(tmp_path / "r", "p/__init__.py", "p/q/a.py", "m.py", "n.py")
    assert batches(root) == {"p": ("p/__init__.py", "p/q/a.py"), "m-to-n": ("m.py", "n.py")}


def test_about_twenty_modules_are_a_run(tmp_path: Path) -> None:
    """Fifty modules are three runs of equal size."""
    root = write(tmp_path / "r", *(f"m{number:02}.py" for number in range(50)))
    assert [len(files) for files in batches(root).values()] == [16, 17, 17]


def test_tests_and_installed_packages_are_left_out(tmp_path: Path) -> None:
    """So are hidden folders and files that are not Python."""
    left_out = ("test/a.py", "p/tests/b.py", "site-packages/c.py", ".git/d.py", "p/data.txt")
    assert batches(write(tmp_path / "r", "p/a.py", *left_out)) == {"p": ("p/a.py",)}


def test_one_file_is_a_corpus(tmp_path: Path) -> None:
    """Its run has the name of the file."""
    assert batches(write(tmp_path, "only.py") / "only.py") == {"only": ("only.py",)}


def test_names_outside_the_grammar_become_run_ids(tmp_path: Path) -> None:
    """Different names stay different."""
    root = write(tmp_path / "r", "a b/x.py", "a-b/x.py", "é/x.py", "x" * 200 + "/x.py")
    names = list(batches(root))
    assert len(set(names)) == 4
    assert all(check_run_id(f"{name}-0a1b") for name in names)


def test_a_pipe_with_the_name_of_a_module_is_left_out(tmp_path: Path) -> None:
    """Reading it would block."""
    root = write(tmp_path / "r", "a.py")
    os.mkfifo(root / "pipe.py")
    assert batches(root) == {"a": ("a.py",)}


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    """A file name with bytes that are not UTF-8 is skipped."""
    root = write(tmp_path / "r", "a.py")
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/\xff.py")).touch()
    except OSError:
        pytest.skip("this file system takes no such name")
    assert batches(root) == {"a": ("a.py",)}


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    """A loop would never end."""
    root = write(tmp_path / "r", "p/a.py")
    (root / "p" / "loop").symlink_to(root)
    assert batches(root) == {"p": ("p/a.py",)}


@pytest.mark.parametrize(("path", "why"), [("nowhere", "does not exist"), (".", "no Python files")])
def test_a_path_without_python_files_is_refused(tmp_path: Path, path: str, why: str) -> None:
    """The error gives the reason."""
    with pytest.raises(InvalidInputError, match=why):
        find_corpus(tmp_path / path)


def test_the_default_is_this_machines_standard_library() -> None:
    """The demo analyses it, without its tests."""
    corpus = find_corpus(None)
    names = {batch.name for batch in corpus.batches}
    assert {"asyncio", "json", "email"} <= names
    assert names.isdisjoint({"test", "site-packages", "lib2to3"})
    assert corpus.file_count > 400
