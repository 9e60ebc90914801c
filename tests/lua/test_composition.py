"""A script is sent without what each of its calls would make in vain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from murmur_streams.stores.redis.scripts import compose, load_scripts
from tests.lua.headers import SCRIPTS

USED = """-- include: tools
local function first(x)
  return LIMIT + LIMIT_TWO + second(x)
end
return first(KEYS[1])
"""
TOOLS = """local LIMIT = 5
local LIMIT_TWO = 10
local TABLE = {a = true}
local function second(x) return x end
local function third(x)
  if x then
    return second(x)
  end
end
local function fourth(x) return third(x) end
"""
COMPOSED = """local TABLE = {a = true}
local function second(x) return x end
local function first(x)
  return 5 + 10 + second(x)
end
return first(KEYS[1])
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_function_has_a_caller(script: str) -> None:
    text = load_scripts()[script].text
    names = re.findall(r"local function (\w+)", text)
    assert [name for name in names if len(re.findall(rf"\b{name}\b", text)) == 1] == []


def test_what_nothing_calls_is_left_out_and_numbers_stand_for_their_names(tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "tools.lua").write_text(TOOLS)
    (tmp_path / "used.lua").write_text(USED)
    assert compose(tmp_path / "used.lua", tmp_path) == COMPOSED
