"""Each error is one clear sentence on stderr, and exit code 2."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from murmur_streams.cli.shell.app import app
from tests.cli.conftest import CommandLine


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["show", "nobody"], "run_id 'nobody' not found"),
        (["show", "a b"], "run_id 'a b' is refused"),
        (["tail", "nobody"], "run_id 'nobody' not found"),
        (["tail", "nobody", "--after", "x"], "'x' is not a cursor"),
        (["keys", "nobody"], "not found"),
        (["audit", "nobody"], "not found"),
        (["submit", "a/b", "1"], "target 'a/b' is refused"),
        (["submit", "echo", "why"], "a text is written as '\"why\"'"),
        (["submit", "echo", "NaN"], "the input"),
        (["submit", "echo", "[" * 100_000], "the input"),
        (["submit", "echo", "1", "--run-id", "a b"], "run_id 'a b' is refused"),
        (["submit", "echo", "1", "--app", "nowhere:fleet"], "no module 'nowhere'"),
        (["submit", "echo", "1", "--app", "fleet_app"], "does not name a fleet"),
        (["worker", "nowhere:fleet"], "no module 'nowhere'"),
        (["worker", "os:path"], "os:path is of type module, not Fleet"),
        (["worker", "os:nothing"], "module 'os' has no 'nothing'"),
        (["show", "a", "--url", "http://x"], "the URL http://x names no store"),
        (["show", "a", "--url", "memory:"], "memory: lives inside one process"),
        (["show", "a", "--prefix", "{a}"], "key_prefix '{a}' is refused"),
        (["--prefix", "{a}", "show", "a"], "key_prefix '{a}' is refused"),
        (["demo", "/nowhere"], "/nowhere does not exist"),
        (["redis", "--url", "redis://:secret@localhost:1", "PING"], "redis://:***@localhost:1"),
    ],
)
def test_a_mistake_is_one_sentence(argv: list[str], why: str) -> None:
    """stderr has one line without secrets, and stdout is empty."""
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == 2, result.output
    assert why in result.stderr
    assert result.stderr.startswith("murmur-streams: ")
    assert result.stderr.count("\n") == 1
    assert "secret" not in result.output
    assert result.stdout == ""


@pytest.mark.parametrize("argv", [["nonsense"], ["show"], ["audit"], ["worker", "a:b", "--x"]])
def test_wrong_usage_is_exit_code_2(argv: list[str]) -> None:
    """The usage has unknown commands or options, or lacks arguments."""
    assert CliRunner().invoke(app, argv).exit_code == 2


def test_a_variable_that_breaks_its_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the name and the value of the variable."""
    monkeypatch.setenv("MURMUR_CONCURRENCY", "1e3")
    result = CliRunner().invoke(app, ["show", "a"])
    assert result.exit_code == 2
    assert "MURMUR_CONCURRENCY is '1e3'" in result.stderr


def test_debug_shows_the_traceback(line: CommandLine) -> None:
    """`--debug` and MURMUR_DEBUG=1 do the same."""
    assert "Traceback" not in line.run("show", "nobody").stderr
    assert "Traceback" in line.run("show", "nobody", "--debug").stderr
    assert "Traceback" in line.run("show", "nobody", MURMUR_DEBUG="1").stderr


def test_a_fleet_without_agents_is_refused(line: CommandLine) -> None:
    """A worker would have nothing to do."""
    refused = line.run("worker", "fleet_app:empty")
    assert (refused.returncode, "no agents" in refused.stderr) == (2, True)


@pytest.mark.parametrize("names", ["", ",", "echo,", " "])
def test_a_worker_for_an_agent_without_a_name_is_refused(line: CommandLine, names: str) -> None:
    """--targets must not contain an empty name."""
    refused = line.run("worker", "fleet_app:fleet", "--targets", names)
    assert (refused.returncode, "--targets has an empty name" in refused.stderr) == (2, True)


def test_a_worker_id_outside_the_grammar_is_refused(line: CommandLine) -> None:
    """The exit code is 2, and the error names the id."""
    refused = line.run("worker", "fleet_app:fleet", "--id", "a b")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("murmur-streams: worker id 'a b' is refused")


INTERRUPTED_IMPORT = """
import sys

class Interrupts:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from murmur_streams.cli.shell.main import main
main()
"""


@pytest.mark.parametrize("module", ["murmur_streams.cli.shell.app", "typer", "pydantic", "redis"])
def test_ctrl_c_during_the_imports_ends_without_a_traceback(module: str) -> None:
    """The exit code is 130, and nothing is printed."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_control_characters_of_a_mistake_are_shown_escaped() -> None:
    """They cannot change a terminal."""
    result = CliRunner().invoke(app, ["worker", "\x1b[31m:x"])
    assert "\x1b" not in result.stderr
