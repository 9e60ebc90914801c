"""The example of docs/cluster.md runs as it stands, also after a primary was killed."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from murmur_streams.stores.redis.keys import Keys
from tests.docs.pages import ROOT, DocsPage

PAGE = DocsPage("cluster.md")
BIN = Path(sys.executable).parent
ON_FIRST_NODE = next(
    run_id
    for run_id in map(str, itertools.count())
    if key_slot(str(Keys("murmur:runs", 16).partition(run_id)).encode()) < 16_384 // 3
)
"""The id of a run whose partition is on the first of three primaries."""


def blocks(language: str) -> list[str]:
    """The page's blocks in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A shell's variables; the package's commands are on its path, and the program is there."""
    [program] = blocks("python")
    (tmp_path / "app.py").write_text(program, encoding="utf-8")
    given = {name: value for name, value in os.environ.items() if not name.startswith("MURMUR_")}
    path = os.pathsep.join((str(BIN), given["PATH"]))
    return given | {"PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def cluster(environ: dict[str, str], tmp_path: Path) -> Iterator[list[str]]:
    """What the first block prints: the nodes, and the variable."""
    [command, _] = blocks("sh")
    started = subprocess.Popen(
        shlex.split(command),
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    printed: list[str] = []
    try:
        while not printed or not printed[-1].startswith("Ctrl-C"):
            line = started.stdout.readline()
            assert line, "the cluster did not start"
            printed.append(line.strip())
        yield printed
    finally:
        started.send_signal(signal.SIGINT)
        started.communicate(timeout=30)


def test_the_example_runs(cluster: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    """Its runs end, and so does one that is submitted after a kill of a primary."""
    [exported] = [line for line in cluster if line.startswith("export MURMUR_URL=")]
    [_, commands] = blocks("sh")
    victim = re.match(r"primary +\S+ +pid (\d+)", cluster[0])
    assert victim is not None

    lines = [
        *("set -e", exported, f"trap 'kill %1; wait' EXIT\n{commands}", f"kill -9 {victim[1]}"),
        f"murmur-streams submit greeter '\"Zoe\"' --run-id {ON_FIRST_NODE} --follow",
    ]
    done = subprocess.run(
        ["bash", "-mc", "\n".join(lines)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("Ada", "Bob", "Zoe"):
        assert f"Hello, {name}!" in done.stdout
    assert "HGETALL 'murmur:runs:{" in done.stdout
    assert len(re.findall(r"\bconnected \d+-\d+", done.stdout)) == 3


def test_its_commands_exist() -> None:
    """With the options that the page shows."""
    PAGE.check_commands(least=4)


def test_the_table_of_partitions_is_right() -> None:
    """The least and the most partitions of a node, with evenly divided slots."""
    for cells in PAGE.table(r"partitions \| 3 nodes.*"):
        partitions, *found = cells
        for nodes, cell in zip((3, 4, 5, 6, 8, 10), found, strict=True):
            slots = [key_slot(str(each).encode()) for each in range(int(partitions))]
            counts = [0] * nodes
            for slot in slots:
                counts[slot * nodes // 16_384] += 1
            least, most = min(counts), max(counts)
            assert cell == (f"{least} to {most}" if least != most else f"{least}")
