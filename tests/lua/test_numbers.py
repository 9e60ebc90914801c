"""Numbers as arguments of commands: times are texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LUA = Path(__file__).parents[2] / "lua"
FILES = sorted(str(path.relative_to(LUA)) for path in LUA.rglob("*.lua"))
EXPIRY = re.compile(r"'(?:PEXPIREAT|PXAT)'(?:, [\w.\[\]]+)??, (digits\(.*\)|\w+)\)")
MOMENT = re.compile(
    r"'(last_ms|ended_ms|expire_at|live_until|created_ms)',\s*([\w.]+(?:\(\w[\w.]*\))?)"
)
TEXTS = {"at", "expire_at", "ARGV", "writer.moment", "moment"}
"""Variables that hold the digits of a time."""


@pytest.mark.parametrize("name", FILES)
def test_times_are_written_with_all_their_digits(name: str) -> None:
    """Redis 7.2.0 to 7.2.4 shorten a number that ends in eight zeros: one time in 28 hours."""
    text = (LUA / name).read_text(encoding="utf-8")
    calls = [line for line in text.splitlines() if re.search("'(PEXPIREAT|PXAT)'", line)]
    found = [EXPIRY.search(line) for line in calls]
    assert all(match and (match[1].startswith("digits(") or match[1] in TEXTS) for match in found)
    for call in re.findall(r"redis\.call\('HSET'.*?\)\n", text, re.DOTALL):
        for _, value in MOMENT.findall(call):
            assert value.startswith("digits(") or value in TEXTS, call
