"""No script sets or reads a global that is not the server's own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lupa.lua51 import LuaRuntime

from murmur_streams.stores.redis.scripts import load_scripts
from tests.lua.headers import SCRIPTS

ALLOWED = {
    *("redis", "KEYS", "ARGV", "string", "table", "math"),
    *("tonumber", "tostring", "ipairs", "pairs", "unpack", "error", "type", "pcall", "next"),
}
KEYWORDS = {
    *("and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in"),
    *("local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while"),
}
STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\[\[.*?\]\]", re.DOTALL)


def declared_names(code: str) -> set[str]:
    """Every name that is local somewhere in the script."""
    names: set[str] = set()
    for pattern in (r"\blocal ([\w, ]+?)(?: =|$| in)", r"\bfor ([\w, ]+?) (?:=|in)"):
        for found in re.findall(pattern, code, re.MULTILINE):
            names |= {name.strip() for name in found.split(",")}
    for name, parameters in re.findall(r"\bfunction ?(\w*)\(([^)]*)\)", code):
        names |= {name, *(parameter.strip() for parameter in parameters.split(","))}
    return names - {""}


def used_names(code: str) -> set[str]:
    """Every free-standing name: no field, no key of a table."""
    without_fields = re.sub(r"[.:]\s*[A-Za-z_]\w*", "", code)
    without_keys = re.sub(r"([{,]\s*)[A-Za-z_]\w*\s*=(?!=)", r"\1", without_fields)
    return set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", without_keys)) - KEYWORDS


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_name_is_local_or_the_servers_own(script: str) -> None:
    """A global would be shared by all scripts."""
    code = STRING.sub("''", load_scripts()[script].text)
    assert used_names(code) - declared_names(code) - ALLOWED == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_function_is_local(script: str) -> None:
    """A global function would be shared by all scripts."""
    assert not re.search(r"^\s*function \w", load_scripts()[script].text, re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_lua_5_1(script: str) -> None:
    """Servers have this version."""
    lua: Any = LuaRuntime(unpack_returned_tuples=True)
    assert lua.globals().loadstring(load_scripts()[script].text) is not None


def test_the_check_sees_a_global() -> None:
    """The check above finds a planted one."""
    code = "local a = 1\nb = a"
    assert used_names(code) - declared_names(code) == {"b"}
