"""Given a file's bytes, these findings and no others."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from examples.code_review.analysis import MAX_SOURCE_BYTES, FileReport, FindingKind, analyse


def found(source: bytes | str, kind: FindingKind, file: str = "a.py") -> list[tuple[int, str, int]]:
    report = analyse(source.encode() if isinstance(source, str) else source, file)
    return [(f.line, f.subject, f.size) for f in report.findings if f.kind is kind]


def nested(depth: int) -> str:
    lines = [f"{'    ' * (level + 1)}if x:" for level in range(depth)]
    return "\n".join(["def f():", *lines, f"{'    ' * (depth + 1)}pass"])


def test_a_long_function_is_found_with_its_class_and_length() -> None:
    """A function of sixty lines is reported."""
    source = "class A:\n    def f(self):\n" + "        x = 1\n" * 59
    assert found(source, FindingKind.LONG_FUNCTION) == [(2, "A.f()", 60)]


def test_a_function_below_the_limit_is_not_found() -> None:
    """A function of fifty-nine lines is not reported."""
    assert found("def f():\n" + "    x = 1\n" * 58, FindingKind.LONG_FUNCTION) == []


def test_the_deepest_block_is_found_with_its_function() -> None:
    """The finding has the line, the function and the depth."""
    assert found(nested(6), FindingKind.DEEP_NESTING) == [(7, "in f()", 6)]


def test_an_elif_is_no_deeper_than_its_if() -> None:
    """A long chain is one level."""
    assert found("if a: pass\n" + "elif b: pass\n" * 20, FindingKind.DEEP_NESTING) == []


def test_an_if_inside_an_else_is_deeper() -> None:
    """Only elif stays on the level of its if."""
    source = "\n".join(f"{' ' * n}if x: pass\n{' ' * n}else:" for n in range(5)) + "\n     pass"
    assert found(source, FindingKind.DEEP_NESTING) == [(9, "in the module", 5)]


def test_a_function_inside_deep_blocks_begins_at_the_top_again() -> None:
    """Its depth counts from its own def."""
    source = nested(4).replace("pass", "def g():\n" + "    " * 6 + "if y: pass")
    assert found(source, FindingKind.DEEP_NESTING) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import os", ["os"]),
        ("import os\nos.getcwd()", []),
        ("import os.path\nos.getcwd()", []),
        ("import a.b as c", ["c"]),
        ("from a import b, c\nprint(c)", ["b"]),
        ("from a import b as b", []),
        ("from a import *", []),
        ("from __future__ import annotations", []),
        ("from a import __version__", []),
        ("from a import B\n__all__ = ['B']", []),
        ("from a import B\nx: 'list[B]' = []", []),
        ("import os  # noqa: F401", []),
        ("def f():\n    import os", ["os"]),
    ],
)
def test_imports_that_nothing_mentions_are_found(source: str, names: list[str]) -> None:
    """Each form of an import is reported if its name is not used."""
    assert [subject for _, subject, _ in found(source, FindingKind.UNUSED_IMPORT)] == names


def test_the_imports_of_an_init_are_its_exports() -> None:
    """An import in an __init__ counts as used."""
    assert found("import os", FindingKind.UNUSED_IMPORT, "p/__init__.py") == []


def test_imported_modules_are_counted_once_by_their_top_level() -> None:
    """Relative imports are left out."""
    report = analyse(b"import os.path, os\nfrom json import loads\nfrom . import x", "a.py")
    assert report.imports == ("json", "os")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        pytest.param(b"def f(:", "invalid syntax", id="syntax"),
        pytest.param(b"a = 1\0", "null bytes", id="null byte"),
        pytest.param(b"\xff\xfe", "codec can't decode", id="not utf-8"),
        pytest.param(b"# coding: nope\n", "unknown encoding", id="unknown encoding"),
        pytest.param(b"# coding: rot13\n", "rot13", id="not a text encoding"),
        pytest.param(b"(" * 5000, "too many nested", id="parentheses"),
        pytest.param(b"-" * 200_000 + b"1", "nested too deeply", id="operators"),
        pytest.param(b"a" + b".b" * 200_000, "nested too deeply", id="attributes"),
        pytest.param(b"1" + b"+1" * 200_000, "nested too deeply", id="sum"),
        pytest.param(b"x = " + b"9" * 10_000, "limit", id="huge integer"),
        pytest.param(b"#" * (MAX_SOURCE_BYTES + 1), "over 4 MiB", id="huge file"),
    ],
)
def test_what_cannot_be_parsed_is_a_finding(source: bytes, why: str) -> None:
    """The finding has the reason and the line."""
    [(line, subject, _)] = found(source, FindingKind.UNPARSABLE)
    assert why in subject
    assert line >= 1


def test_the_subject_of_a_hostile_file_cannot_drive_a_terminal() -> None:
    """Control characters are escaped."""
    [(_, subject, _)] = found(b"# coding: \x1b[31m\n", FindingKind.UNPARSABLE) or [(1, "", 0)]
    assert subject.isprintable()


@pytest.mark.parametrize("source", [b"", b"'\\d'", b"x = 0x" + b"f" * 100_000])
def test_odd_but_valid_files_are_parsed(source: bytes) -> None:
    """An empty file, a bad escape and a huge number give no finding."""
    assert found(source, FindingKind.UNPARSABLE) == []


def test_lines_and_functions_are_counted() -> None:
    """The report counts lines, def and async def."""
    report = analyse(b"def f(): pass\nasync def g(): pass", "a.py")
    assert (report.lines, report.functions) == (2, 2)


def test_every_file_of_asyncio_has_a_report() -> None:
    """The analysis gets through real code."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"], "asyncio").glob("*.py"))
    reports = [analyse(path.read_bytes(), path.name) for path in files]
    assert all(isinstance(report, FileReport) and report.lines for report in reports if report)
    assert sum(report.functions for report in reports) > 500
