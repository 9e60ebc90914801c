"""Files and tests that the documentation refers to exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(text: Path) -> None:
    """Each relative link of each page leads to a file."""
    links = re.findall(r"\]\(([^)#]+)\)", text.read_text(encoding="utf-8"))
    files = [link for link in links if "://" not in link]
    assert not [link for link in files if not (text.parent / link).exists()]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_is_named_exists(text: Path) -> None:
    """Each path of a test that a page names is a file."""
    named = re.findall(r"`(tests/[\w/]+\.py)`", text.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]
