"""An app module that cannot be imported is reported in one line; dev waits until it is fixed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine

GOOD = """
from murmur_streams import Fleet

fleet = Fleet()


@fleet.agent
async def version() -> int:
    return 1
"""
HELPED = {"bk.py": "import helper", "helper.py": "\n\nraise ValueError('\\x1b[31mno')"}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"bk.py": "this was never Python"}, "SyntaxError: invalid syntax (bk.py, line 1)"),
        ({"bk.py": "a = 1\nb = a / 0"}, "ZeroDivisionError: division by zero (bk.py, line 2)"),
        ({"bk.py": "import json\njson.loads('{')"}, " (bk.py, line 2)"),
        (HELPED, r"ValueError: \x1b[31mno (helper.py, line 3)"),
        ({"bk.py": "import nowhere"}, "No module named 'nowhere' (bk.py, line 1)"),
        ({"bk.py": "assert False"}, "AssertionError (bk.py, line 1)"),
        ({"bk.py": GOOD + "fleet.agent(retries=-1)"}, "InvalidInputError: retries is -1, but"),
        ({"bk.py": "import sys; sys.exit()"}, "it called sys.exit() (bk.py, line 1)"),
        ({"bk.py": "import sys; sys.exit(0)"}, "it called sys.exit(0) (bk.py, line 1)"),
        ({"bk.py": "raise SystemExit('bye')"}, "it called sys.exit('bye') (bk.py, line 1)"),
    ],
)
def test_what_an_import_raises_is_one_line(
    line: CommandLine, tmp_path: Path, files: dict[str, str], why: str
) -> None:
    """The line has the file and the line number of the fault."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    failed = line.run("submit", "version", "--app", "bk:fleet", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("murmur-streams: importing 'bk' failed: ")
    assert why in failed.stderr
    assert failed.stderr.count("\n") == 1, failed.stderr


def test_the_whole_traceback_is_there_for_who_asks(line: CommandLine, tmp_path: Path) -> None:
    """`--debug` prints it."""
    (tmp_path / "bk.py").write_text("b = 1 / 0")
    failed = line.run("submit", "version", "--app", "bk:fleet", "--debug", cwd=tmp_path)
    assert failed.returncode == 2
    assert "ZeroDivisionError: division by zero\n" in failed.stderr
    assert "Traceback (most recent call last)" in failed.stderr


def test_each_of_many_processes_would_fail_so_one_does(line: CommandLine, tmp_path: Path) -> None:
    """The parent prints the message once."""
    (tmp_path / "bk.py").write_text("import sys; sys.exit(0)")
    failed = line.run("worker", "bk:fleet", "--processes", "2", cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stderr.count("importing 'bk' failed: it called sys.exit(0)") == 1
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["import sys; sys.exit(0)", "this was never Python", "1 / 0"])
def test_dev_waits_until_the_module_is_mended(
    line: CommandLine, tmp_path: Path, broken: str
) -> None:
    """After the file is repaired, it starts the worker."""
    (tmp_path / "bk.py").write_text(broken)
    process = line.start("dev", "bk:fleet", cwd=tmp_path)
    assert process.stderr is not None

    def read_until(text: str) -> str:
        reported = ""
        while text not in reported:
            read = process.stderr.readline() if process.stderr else ""
            assert read, reported
            reported += read
        return reported

    reported = read_until("started again after a change")
    assert "importing 'bk' failed: " in reported
    assert "Traceback" not in reported
    (tmp_path / "bk.py").write_text(GOOD)
    read_until("agents    version")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
