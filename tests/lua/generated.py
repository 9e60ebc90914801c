"""Writes the Lua includes that Python owns: ``python -m tests.lua.generated``."""

from __future__ import annotations

import textwrap
from dataclasses import fields

from murmur_streams.core.model.run import PROGRESS_FIELDS, Run
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.core.rules.decide import LIVE_GRACE_MS, PROGRESS_INTERVAL_MS
from murmur_streams.core.rules.executions import DEADLINE_TEXT, GIVEN_UP_TEXTS, NEGLECTED_TEXT
from murmur_streams.stores.redis.scripts import script_folder

_HEAD = "-- Generated from {}.py by: python -m tests.lua.generated\n"


def failure_texts_lua() -> str:
    """The text of ``lua/include/failure_texts.lua``; a test compares it with the file."""
    given_up = "".join(f"    {name} = '{text}',\n" for name, text in GIVEN_UP_TEXTS.items())
    return (
        _HEAD.format("murmur_streams/core/rules/executions")
        + f"local function deadline_text() return '{DEADLINE_TEXT}' end\n"
        + f"local function neglected_text() return '{NEGLECTED_TEXT}' end\n"
        + f"local function given_up_texts()\n  return {{\n{given_up}  }}\nend\n"
    )


def states_lua() -> str:
    """The text of ``lua/include/states.lua``; a test compares it with the file."""
    terminal = ", ".join(f"{state} = true" for state in sorted(TERMINAL_STATES))
    # A function without a caller is left out of a script; a table would be made by every call.
    states = ", ".join(f"'{state}'" for state in RunState)
    names = [each.name for each in fields(Run) if str(each.type).split(" ")[0] == "int"]
    names += [f"progress_{name}" for name in PROGRESS_FIELDS]
    lines = textwrap.wrap(" ".join(sorted(names)), 80)
    # A text costs a call nothing; a table would be made by every call.
    numbers = "\n".join(f" {line}" for line in lines)
    return (
        _HEAD.format("murmur_streams/core/model/states") + f"local TERMINAL = {{{terminal}}}\n"
        f"local function all_states() return {{{states}}} end\n"
        f"local NUMBER_FIELDS = [[\n{numbers} ]]\n"
        f"local PROGRESS_INTERVAL_MS = {PROGRESS_INTERVAL_MS}\n"
        f"local LIVE_GRACE_MS = {LIVE_GRACE_MS}\n"
    )


if __name__ == "__main__":
    for name, text in {"states": states_lua(), "failure_texts": failure_texts_lua()}.items():
        (script_folder() / "include" / f"{name}.lua").write_text(text, encoding="utf-8")
