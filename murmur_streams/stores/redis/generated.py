"""Writes the Lua tables that Python owns: ``python -m murmur_streams.stores.redis.generated``."""

from __future__ import annotations

import textwrap
from dataclasses import fields

from murmur_streams.core.model.run import PROGRESS_FIELDS, Run
from murmur_streams.core.model.states import TERMINAL_STATES, RunState
from murmur_streams.core.rules.decide import LIVE_GRACE_MS, PROGRESS_INTERVAL_MS
from murmur_streams.stores.redis.scripts import script_folder


def states_lua() -> str:
    """The text of ``lua/include/states.lua``; a test says when the file is stale."""
    terminal = ", ".join(f"{state} = true" for state in sorted(TERMINAL_STATES))
    # A function costs nothing where nobody calls it; a table would be made by every script.
    states = ", ".join(f"'{state}'" for state in RunState)
    names = [each.name for each in fields(Run) if str(each.type).split(" ")[0] == "int"]
    names += [f"progress_{name}" for name in PROGRESS_FIELDS]
    lines = textwrap.wrap(" ".join(sorted(names)), 80)
    # A text costs a script nothing; a table would be made by every call.
    numbers = "\n".join(f" {line}" for line in lines)
    return (
        "-- Generated from murmur_streams/core/model/states.py by: "
        "python -m murmur_streams.stores.redis.generated\n"
        f"local TERMINAL = {{{terminal}}}\n"
        f"local function all_states() return {{{states}}} end\n"
        f"local NUMBER_FIELDS = [[\n{numbers} ]]\n"
        f"local PROGRESS_INTERVAL_MS = {PROGRESS_INTERVAL_MS}\n"
        f"local LIVE_GRACE_MS = {LIVE_GRACE_MS}\n"
    )


if __name__ == "__main__":
    (script_folder() / "include" / "states.lua").write_text(states_lua(), encoding="utf-8")
