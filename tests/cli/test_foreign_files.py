"""A file that is not an export is recognized by its first bytes."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from murmur_streams.core.archive.lines import HEADER
from tests.cli.conftest import CommandLine


def test_a_compressed_file_is_refused_with_the_right_command(
    line: CommandLine, tmp_path: Path
) -> None:
    """The error has the gunzip line to copy."""
    packed = tmp_path / "of mine.gz"
    packed.write_bytes(gzip.compress(HEADER.encode()))
    done = line.run("import", str(packed))
    assert done.returncode == 2
    assert f"it is compressed: gunzip -c '{packed}' | murmur-streams import" in done.stderr


@pytest.mark.parametrize("size", [500, 3_000_000])
def test_an_endless_line_is_refused_by_its_first_bytes(
    line: CommandLine, tmp_path: Path, size: int
) -> None:
    """The file is not read to its end."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"x" * size)
    done = line.run("import", str(foreign))
    assert (done.returncode, "this is not an export of runs" in done.stderr) == (2, True), (
        done.stderr
    )
    resumed = line.run("export", "--resume", "-o", str(foreign))
    assert (resumed.returncode, "not an export of runs" in resumed.stderr) == (2, True)
    piped = subprocess.run(
        [sys.executable, "-m", "murmur_streams", "import"],
        input=b"x" * size,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert (piped.returncode, b"this is not an export of runs" in piped.stderr) == (2, True)
