"""No script sets or reads a global that is not the server's own, and no call leaves a value."""

from __future__ import annotations

import re

import pytest

from murmur_streams.stores.redis.scripts import load_library, load_scripts
from tests.lua.bytecode import compiled
from tests.lua.headers import SCRIPTS

SERVERS_OWN = {
    *("redis", "string", "table", "math"),
    *("tonumber", "tostring", "ipairs", "pairs", "unpack", "error", "type", "pcall", "next"),
}
OF_A_CALL = {"KEYS", "ARGV", "CALL"}
TEXTS = {name: script.text for name, script in load_scripts().items()}
TEXTS.update(
    (f"cluster/{name}", script.text) for name, script in load_scripts(is_cluster=True).items()
)
LIBRARY = load_library().text.split("\n", 1)[1]
"""Without the line that names it."""
every_text = pytest.mark.parametrize("name", [*TEXTS, "library"])
TABLE = re.compile(r"^local (\w+(?:, \w+)*) = .*\{", re.MULTILINE)


def read_and_set(text: str) -> tuple[set[str], set[str]]:
    """The globals that a text reads and sets, in any of its functions."""
    functions = list(compiled(text).all())
    read = set[str]().union(*(each.globals_read() for each in functions))
    return read, set[str]().union(*(each.globals_set() for each in functions))


def assigned_by_calls(text: str) -> set[str]:
    """The locals of a chunk that its functions assign."""
    return set[str]().union(*(each.chunk_locals_set() for each in compiled(text).all()))


def fields_assigned(text: str) -> set[str]:
    """The tables of a chunk of which any field is assigned within a function."""
    tables = {name for names in TABLE.findall(text) for name in names.split(", ")}
    indented = re.findall(
        r"^ .*?\b([A-Z_]+)(?:\.\w+|\[[^\]]+\])(?:, [^=\n]*)? = ", text, re.MULTILINE
    )
    added = re.findall(r"(?:table\.\w+|rawset|set_field)\(([A-Z_]+)\b", text)
    return tables & {*indented, *added}


@pytest.mark.parametrize("script", TEXTS)
def test_every_name_is_local_or_the_servers_own(script: str) -> None:
    """A global would be shared by all scripts. CALL, COMMANDS and DENIED are locals."""
    read, assigned = read_and_set(TEXTS[script])
    assert read - SERVERS_OWN <= {"KEYS", "ARGV"}
    assert assigned == set()


def test_every_name_of_the_library_is_local_or_the_servers_own() -> None:
    """A library has no globals KEYS and ARGV: they are locals, as CALL is."""
    read, assigned = read_and_set(LIBRARY)
    assert read - SERVERS_OWN == set()
    assert assigned == set()


@every_text
def test_every_function_is_local(name: str) -> None:
    """A global function would be shared by all scripts."""
    assert not re.search(r"^\s*function \w", TEXTS.get(name, LIBRARY), re.MULTILINE)


def test_only_the_state_of_a_call_is_assigned_in_the_library() -> None:
    """What a call assigned to another local of the chunk would still be there in the next one."""
    assert assigned_by_calls(LIBRARY) == OF_A_CALL


def test_no_shared_table_of_the_library_is_changed() -> None:
    """Of the tables that all calls share only CALL gets values, and each call has a new one."""
    assert fields_assigned(LIBRARY) <= {"CALL"}


def test_every_function_of_the_library_begins_with_a_new_state() -> None:
    """Its first statement assigns all three; LOADED reads none of them."""
    registered = LIBRARY.split("redis.register_function(")[1:]
    assert len(registered) == len(SCRIPTS) + 2
    begins = re.compile(
        r"callback = function\(keys, arguments\)\n\s+KEYS, ARGV, CALL = keys, arguments, \{\}\n"
    )
    [other] = [text for text in registered if not begins.search(text)]
    assert f"'{load_library().function('loaded')}'" in other
    assert re.search(r"\b(KEYS|ARGV|CALL)\b", other) is None


@every_text
def test_every_text_is_lua_5_1(name: str) -> None:
    """Servers have this version."""
    assert compiled(TEXTS.get(name, LIBRARY)).code


def test_the_checks_see_what_they_look_for() -> None:
    """Planted globals, an assigned local and a changed table are found."""
    code = (
        "local a, KEEP = 1, {}\nb = a\n"
        "local function f(x)\n  local function g()\n    a = x\n  end\n"
        "  KEEP[x] = g\n  return c\nend\n"
    )
    assert read_and_set(code) == ({"c"}, {"b"})
    assert assigned_by_calls(code) == {"a"}
    assert fields_assigned(code) == {"KEEP"}
