"""Writes the Lua tables that Python owns: ``python -m murmur_streams.stores.redis.generated``."""

from __future__ import annotations

from murmur_streams.core.decide import LIVE_GRACE_MS, PROGRESS_INTERVAL_MS
from murmur_streams.core.states import TERMINAL_STATES, RunState
from murmur_streams.stores.redis.scripts import script_folder


def states_lua() -> str:
    """The text of ``lua/include/states.lua``; a test says when the file is stale."""
    terminal = ", ".join(f"{state} = true" for state in sorted(TERMINAL_STATES))
    # A function costs nothing where nobody calls it; a table would be made by every script.
    states = ", ".join(f"'{state}'" for state in RunState)
    return (
        "-- Generated from murmur_streams/core/states.py by: "
        "python -m murmur_streams.stores.redis.generated\n"
        f"local TERMINAL = {{{terminal}}}\n"
        f"local function all_states() return {{{states}}} end\n"
        f"local PROGRESS_INTERVAL_MS = {PROGRESS_INTERVAL_MS}\n"
        f"local LIVE_GRACE_MS = {LIVE_GRACE_MS}\n"
    )


if __name__ == "__main__":
    (script_folder() / "include" / "states.lua").write_text(states_lua(), encoding="utf-8")
