"""A script is sent without what each of its calls would make in vain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from murmur_streams.stores.redis.script_rights import FREEING_COMMANDS
from murmur_streams.stores.redis.scripts import (
    HOT_COMMANDS,
    HOT_COMMIT,
    Sources,
    compose,
    load_library,
    load_scripts,
    script_folder,
)
from tests.lua.bytecode import compiled
from tests.lua.headers import CLUSTER, CLUSTER_SCRIPTS, COMMANDS, SCRIPTS, path_of

MOST_LOCALS, MOST_UPVALUES = 200, 60
"""The limits of Lua 5.1: of a chunk, and of each function."""
TEXTS = {name: script.text for name, script in load_scripts().items()}
TEXTS["library"] = load_library().text
TEXTS.update(
    (f"{CLUSTER}{name}", script.text) for name, script in load_scripts(is_cluster=True).items()
)
TEXTS[f"{CLUSTER}library"] = load_library(is_cluster=True).text
every_text = pytest.mark.parametrize("name", TEXTS)

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


@every_text
def test_every_function_has_a_caller(name: str) -> None:
    """Functions that a script does not call are left out."""
    text = TEXTS[name]
    names = re.findall(r"local function (\w+)", text)
    assert [name for name in names if len(re.findall(rf"\b{name}\b", text)) == 1] == []


def names_without_use(code: str) -> list[str]:
    """The locals that are only declared."""
    declared = re.findall(r"\blocal ([\w, ]+?) *=", code)
    names = {name for names in declared for name in re.split(r", *", names)} - {"_"}
    return sorted(name for name in names if len(re.findall(rf"\b{name}\b", code)) == 1)


@every_text
def test_no_text_comes_near_the_limits_of_lua(name: str) -> None:
    """A library that has too many locals or upvalues is not loaded, and nothing else would tell."""
    text = TEXTS[name]
    chunk = compiled(text.split("\n", 1)[1] if name.endswith("library") else text)
    assert chunk.most_locals() < MOST_LOCALS
    assert max(len(function.upvalues) for function in chunk.all()) < MOST_UPVALUES


def test_the_commands_are_those_of_the_commit_scripts() -> None:
    """Each is executed by its name, and only after a check of the rights that it needs."""
    for name, commands in {
        "commit": COMMANDS,
        HOT_COMMIT: [*HOT_COMMANDS],
        "library": COMMANDS,
        "cluster/commit": COMMANDS,
        "cluster/library": COMMANDS,
    }.items():
        text = TEXTS[name]
        table = ", ".join(f"{each} = {each}" for each in sorted(commands))
        assert f"local COMMANDS, DENIED = {{{table}}}, {{}}\n" in text
        assert re.findall(r"^DENIED\.(\w+) = function\(key\)", text, re.MULTILINE) == sorted(
            commands
        )
    assert set(COMMANDS) >= FREEING_COMMANDS


def test_the_librarys_name_is_that_of_its_code() -> None:
    """Programs of two versions load two libraries; every function has the library's name."""
    functions = [*SCRIPTS, "commit_freeing", "loaded"]
    of_cluster = [*functions, *(name.removeprefix(CLUSTER) for name in CLUSTER_SCRIPTS)]
    libraries = (load_library(), functions), (load_library(is_cluster=True), of_cluster)
    for library, expected in libraries:
        assert library.text.startswith(f"#!lua name={library.name}\n")
        names = re.findall(r"register_function\((?:\{function_name = )?'(\w+)'", library.text)
        assert sorted(names) == sorted(library.function(each) for each in expected)
    assert libraries[0][0].name != libraries[1][0].name


@pytest.mark.parametrize("script", [*SCRIPTS, *COMMANDS, *CLUSTER_SCRIPTS])
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
    assert compose(tmp_path / "used.lua", Sources(tmp_path)) == COMPOSED


def test_an_include_of_a_cluster_replaces_the_usual_one(tmp_path: Path) -> None:
    """Only on a cluster, and only the one of the same name."""
    for folder, text in (("", "return 1"), ("cluster", "return 2")):
        (tmp_path / folder / "include").mkdir(parents=True)
        path = tmp_path / folder / "include" / "tools.lua"
        path.write_text(f"local function second(x) {text} end\n")
    (tmp_path / "used.lua").write_text("-- include: tools\nreturn second(KEYS[1])\n")
    (tmp_path / "cluster" / "more.lua").write_text("return 3\n")
    for is_cluster, number, names in ((False, 1, ["used"]), (True, 2, ["more", "used"])):
        sources = Sources(tmp_path, is_cluster)
        assert f"return {number}" in compose(tmp_path / "used.lua", sources)
        assert sorted(path.stem for path in sources.scripts()) == names
