"""The programs of docs/testing.md pass as they stand, and the plugin costs little to load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
OPTIONS = ("-o", "asyncio_default_fixture_loop_scope=function")
"""Without it, pytest-asyncio warns of its own future."""
PLUGINS = ("pytest_asyncio.plugin", "murmur_streams.testing.plugin")


def blocks() -> dict[str, str]:
    """The page's programs by the name that each begins with."""
    found = re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == PAGE.count("```python")
    return {name: text for text, name in found}


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process of its own; it loads the plugin by name, installed or not."""
    environ = {name: value for name, value in os.environ.items() if "MURMUR" not in name}
    loaded = [part for plugin in PLUGINS for part in ("-p", plugin)]
    return subprocess.run(
        (sys.executable, "-W", "error", "-m", "pytest", "-q", *OPTIONS, *loaded, *arguments),
        cwd=folder,
        env=environ
        | {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "",
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join((str(ROOT), environ.get("PYTHONPATH", ""))),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_programs_of_the_page_pass(tmp_path: Path) -> None:
    """pytest executes them as a user would."""
    for name, text in blocks().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = run_pytest(tmp_path, "-W", "error", "--basetemp", str(tmp_path / "base"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "27 passed" in done.stdout
    assert done.stderr == ""
    # The session's server has ended: its socket is gone.
    assert list(tmp_path.glob("base/murmur*/data")), "the session had a server"
    assert not list(tmp_path.glob("base/murmur*/data/server.sock"))


def test_the_plugin_imports_nothing_but_pytest_until_it_is_used() -> None:
    """It is loaded by every pytest of a user."""
    program = (
        "import pytest, sys\nbefore = set(sys.modules)\nimport murmur_streams.testing.plugin\n"
    )
    program += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        (sys.executable, "-W", "error", "-c", program),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if name.startswith(("murmur", "redis", "pydan"))}
    assert loaded == {"murmur_streams", "murmur_streams.testing", "murmur_streams.testing.plugin"}


def test_the_package_names_the_plugin_for_pytest_to_find() -> None:
    """pyproject.toml has the entry point."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert (
        '[project.entry-points.pytest11]\nmurmur_streams = "murmur_streams.testing.plugin"' in text
    )


def test_the_table_has_every_fixture(tmp_path: Path) -> None:
    """The fixtures of the plugin and those of the page are the same."""
    done = run_pytest(tmp_path, "--fixtures", "-v")
    found = set(re.findall(r"^(murmur_\w+)", done.stdout, re.MULTILINE))
    assert found == set(re.findall(r"^\| `(murmur_\w+)`", PAGE, re.MULTILINE))
