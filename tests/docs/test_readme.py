"""Every block of the README runs, and its tables agree with the code."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from murmur_streams.cli.shell.about import settings_table
from murmur_streams.embedded import stop_server
from tests.cli.waiting import wait_until
from tests.key_audit import audit_folder
from tests.pods.balancer import free_ports

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """A new folder with the README's programs in it, and nothing else."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for block in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None, f"the block does not say which file it is: {block[:60]}"
        (folder / name[1]).write_text(block, encoding="utf-8")
    yield folder
    try:
        audit_folder(tmp_path / "data")
    finally:
        stop_server(tmp_path / "data")


def run(programs: Path, *command: str, port: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # our own programs
        command,
        cwd=programs,
        env=environment(programs, port),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment(programs: Path, port: int | None = None) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MURMUR_")}
    environ |= {} if port is None else {"MURMUR_PORT": str(port)}
    path = f"{BIN}{os.pathsep}{environ['PATH']}"
    return {**environ, "MURMUR_DATA_DIR": str(programs.parent / "data"), "PATH": path}


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_the_ten_lines_run_in_a_worker(programs: Path) -> None:
    """A run is submitted from the command line, then from a program, and both get its output."""
    lines = [line.split("#")[0].strip() for line in "".join(blocks("sh")).splitlines()]
    worker = next(line for line in lines if line.startswith("murmur-streams worker"))
    submit = next(line for line in lines if line.startswith("murmur-streams submit"))
    process = subprocess.Popen(  # noqa: S602  # the README's own line
        f"exec {BIN}/{worker.removesuffix('&')}",
        shell=True,
        cwd=programs,
        env=environment(programs),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        printed = run(programs, "sh", "-c", f"{BIN}/{submit}")
        assert printed.returncode == 0, printed.stderr
        assert "Hello, Ada!" in printed.stdout
        asked = run(programs, sys.executable, "ask.py")
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.splitlines()[-1] == "Hello, Ada!"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_lines_over_http_stream_a_run(programs: Path) -> None:
    """curl and the Python client both submit a run to a pod and follow it to its end."""
    (block,) = (block for block in blocks("sh") if "curl" in block)
    lines = block.splitlines()
    assert len(lines) <= 10
    serve = next(line for line in lines if line.startswith("murmur-streams serve"))
    asking = "\n".join(lines[lines.index(serve) + 1 :])
    (port,) = free_ports(1)
    pod = subprocess.Popen(  # noqa: S602  # the README's own line
        f"exec {serve.split('#')[0].strip().removesuffix('&')}",
        shell=True,
        cwd=programs,
        env=environment(programs, port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_listening(port), "the pod listens")
        asked = run(programs, "sh", "-eu", "-c", asking.replace("8421", str(port)), port=port)
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.startswith('{"run_id":"hello-1"}')
        assert re.findall(r"^event: (\w+)$", asked.stdout, re.MULTILINE) == [
            "agent_started",
            "agent_output",
            "agent_output",
            "agent_completed",
        ]
        program = programs / "over_http.py"
        program.write_text(program.read_text(encoding="utf-8").replace("8421", str(port)))
        done = run(programs, sys.executable, program.name)
        assert (done.returncode, done.stdout) == (0, "Hello, Ada!\n"), done.stderr
    finally:
        pod.send_signal(signal.SIGTERM)
        assert pod.wait(30) == 0


def test_the_store_program_streams_and_audits(programs: Path) -> None:
    """It reads back the events that it appended, and the audit finds no problem."""
    done = run(programs, sys.executable, "store.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[1, 2]\n")
    assert "problems=()" in done.stdout


def test_the_settings_table_is_that_of_the_code() -> None:
    """The README has the table that `murmur-streams settings` prints."""
    assert settings_table() in README


def test_the_first_two_commands_are_verbs_of_the_makefile() -> None:
    """A stranger's first commands exist."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for verb in re.findall(r"^make (\w+)", blocks("sh")[0], re.MULTILINE):
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE)
