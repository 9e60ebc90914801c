"""A script is sent without what each of its calls would make in vain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from murmur_streams.stores.redis.scripts import compose, load_scripts, script_folder
from tests.lua.headers import SCRIPTS, path_of

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
    """Functions that a script does not call are left out."""
    text = load_scripts()[script].text
    names = re.findall(r"local function (\w+)", text)
    assert [name for name in names if len(re.findall(rf"\b{name}\b", text)) == 1] == []


def names_without_use(code: str) -> list[str]:
    """The locals that are only declared."""
    declared = re.findall(r"\blocal ([\w, ]+?) *=", code)
    names = {name for names in declared for name in re.split(r", *", names)} - {"_"}
    return sorted(name for name in names if len(re.findall(rf"\b{name}\b", code)) == 1)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_local_of_a_script_has_a_use(script: str) -> None:
    """A name that is never read is a mistake."""
    code = "\n".join(
        line for line in path_of(script).read_text().splitlines() if not line.startswith("--")
    )
    assert names_without_use(code) == []


def test_the_check_sees_a_local_without_use() -> None:
    """The check above finds a planted one."""
    assert names_without_use("local a, b = 1, 2\nlocal _, c = f(b)\nreturn c") == ["a"]


def test_only_the_generated_file_spells_out_the_states() -> None:
    """They come from the Python enum."""
    spelled = re.compile(r"'completed', 'failed', 'cancelled'|completed = true")
    paths = [path for path in script_folder().rglob("*.lua") if spelled.search(path.read_text())]
    assert [path.name for path in paths] == ["states.lua"]


def test_composing_drops_unused_functions_and_inlines_numbers(tmp_path: Path) -> None:
    """A small example shows it."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "tools.lua").write_text(TOOLS)
    (tmp_path / "used.lua").write_text(USED)
    assert compose(tmp_path / "used.lua", tmp_path) == COMPOSED
