"""docs/architecture.md agrees with the code: files, keys, layers."""

from __future__ import annotations

import json
import re

from tests.docs.pages import ROOT, DocsPage, named
from tests.key_audit import TABLE

PAGE = DocsPage("architecture.md")


def test_each_file_it_names_exists() -> None:
    """Paths in backticks are files or folders of the package, or of the repository."""
    paths = set(re.findall(r"`([\w/]+(?:/|\.py|\.lua))`", PAGE.text))
    assert len(paths) > 30
    homes = (ROOT / "murmur_streams", ROOT)
    missing = [path for path in paths if not any((home / path).exists() for home in homes)]
    assert missing == []


def test_its_key_table_is_the_pinned_one() -> None:
    """Every key is in a row, with the type that the key audit knows."""
    rows = {
        key if key.startswith("<prefix>") else f"<prefix>:{{p}}{key}": kind
        for keys, kind, _ in PAGE.table("key \\| type \\| holds")
        for key in named(keys)
    }
    pinned = json.loads(TABLE.read_text(encoding="utf-8"))["rows"]
    assert rows == {row["key"]: row["type"] for row in pinned}
