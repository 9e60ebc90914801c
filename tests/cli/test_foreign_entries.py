"""An entry of an unknown type that was added to a journal by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import CommandLine

JOURNAL = "murmur:runs:{0}:journal:r-1"


@pytest.fixture
def foreign(line: CommandLine, in_store: Any) -> None:
    """A run whose journal ends with a stranger's entry."""
    in_store(lambda store: store.create("r-1", "t"))
    added = line.run("redis", "XADD", JOURNAL, "9999999999999-2", "strange\x1b", "field\x1b[31m")
    assert added.returncode == 0, added.stderr


@pytest.mark.usefixtures("foreign")
def test_show_prints_it_like_any_other(line: CommandLine) -> None:
    """Its control characters are escaped."""
    shown = line.run("show", "r-1")
    assert shown.returncode == 0, shown.stderr
    assert "run.created" in shown.stdout
    assert "#2" in shown.stdout
    assert "field" in shown.stdout
    assert "\x1b" not in shown.stdout


@pytest.mark.usefixtures("foreign")
def test_show_with_json_has_its_fields_and_no_type(line: CommandLine) -> None:
    """The JSON has the fields as they are stored."""
    shown = line.run("show", "r-1", "--json")
    assert shown.returncode == 0, shown.stderr
    first, last = json.loads(shown.stdout)["journal"]
    assert (first["type"], "type" in last) == ("run.created", False)
    assert (last["seq"], last["strange\x1b"]) == (2, "field\x1b[31m")


@pytest.mark.usefixtures("foreign")
def test_audit_names_it(line: CommandLine) -> None:
    """The exit code is 1, and no traceback is printed."""
    audited = line.run("audit", "r-1")
    assert (audited.returncode, "Traceback" in audited.stderr) == (1, False)
