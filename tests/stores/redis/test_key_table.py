"""The key table is pinned: what forms keys, in Python and in Lua, forms its rows and no others."""

from __future__ import annotations

import inspect
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from lupa.lua51 import LuaRuntime

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.keys import SCHEMA_VERSION, Keys
from murmur_streams.stores.redis.scripts import script_folder
from tests.key_audit import TABLE, key_table

BASE = "<prefix>:{p}"
NAMES: dict[str, Any] = {
    "run_id": "<run_id>",
    "target": "<target>",
    "tenant": "<tenant>",
    "state": "<state>",
    "reader_id": "<reader_id>",
    "worker_id": "<worker_id>",
    "digest": "<digest>",
    "producer": "<producer_id>",
    "partition": 0,
}
NOT_KEYS = {
    *("of_run", "base_and_feed", "commit_keys", "partition", "base"),
    *("partition_of_key", "hints", "change", "is_located", "locate", "unlocate"),
}


class Shown(Keys):
    """Forms rows of the table instead of keys."""

    def __init__(self) -> None:
        super().__init__("prefix")
        self.prefix = "<prefix>"
        self.meta, self.workers = "<prefix>:meta", "<prefix>:workers"

    def base(self, partition: int = 0) -> str:
        return BASE


def rows_of_python() -> set[str]:
    keys = Shown()
    rows = {keys.meta, keys.workers}
    for name, method in inspect.getmembers(keys, inspect.ismethod):
        if not name.startswith("_") and name not in NOT_KEYS:
            names = [*inspect.signature(method).parameters]
            rows.add(method(*(NAMES[each] for each in names)))
    return rows


@pytest.fixture
def lua() -> Any:
    """Every function of ``include/keys.lua``, by its name."""
    source = (script_folder() / "include" / "keys.lua").read_text(encoding="utf-8")
    names = re.findall(r"^local function (\w+)", source, re.MULTILINE)
    exported = ", ".join(f"{name} = {name}" for name in names)
    return LuaRuntime(unpack_returned_tuples=True).execute(f"{source}\nreturn {{{exported}}}")


def test_the_schema_version_is_that_of_the_table() -> None:
    """A change of the table goes with a new schema version."""
    assert json.loads(TABLE.read_text(encoding="utf-8"))["schema_version"] == SCHEMA_VERSION


def test_python_forms_the_rows_of_the_table_and_no_others() -> None:
    """Keys has a method for each row of the table."""
    assert rows_of_python() == {row.key for row in key_table()}


def test_python_and_lua_agree_on_the_keys_of_a_run() -> None:
    """The keys that expire with a run are the same in the key table and in the scripts."""
    assert Shown().of_run("<run_id>") == [row.key for row in key_table() if row.expires == "run"]


def test_lua_forms_the_keys_of_a_run_as_python_does(lua: Any) -> None:
    """Both have the same keys of one run."""
    formed = lua.keys_of_run(BASE, "<run_id>")
    names = ("run", "journal", "producers", "input", "result", "checkpoint")
    assert [formed[name] for name in names] == Shown().of_run("<run_id>")
    assert len(list(formed)) == len(names)


@pytest.mark.parametrize(
    ("function", "arguments", "row"),
    [
        ("run_key", ["<run_id>"], Shown().run("<run_id>")),
        ("journal_key", ["<run_id>"], Shown().journal("<run_id>")),
        (
            "restoring_key",
            ["<run_id>", "<digest>"],
            Shown().restoring("<run_id>", "<digest>"),
        ),
        ("producer_key", ["<producer_id>"], Shown().producer("<producer_id>", 0)),
        ("input_key", ["<run_id>"], Shown().input("<run_id>")),
        ("result_key", ["<run_id>"], Shown().result("<run_id>")),
        ("checkpoint_key", ["<run_id>"], Shown().checkpoint("<run_id>")),
        ("producers_key", ["<run_id>"], Shown().producers("<run_id>")),
        ("queue_key", ["<target>"], Shown().queue("<target>", 0)),
        ("wake_key", ["<target>"], Shown().wake("<target>", 0)),
        ("idle_key", ["<target>"], Shown().idle("<target>", 0)),
        ("index_key", [], Shown().index(0)),
        ("state_index_key", ["pending"], Shown().index_state(RunState.PENDING, 0)),
        ("target_index_key", ["<target>"], Shown().index_target("<target>", 0)),
        ("tenant_index_key", ["<tenant>"], Shown().index_tenant("<tenant>", 0)),
        ("expiring_key", [], Shown().expiring(0)),
        ("leases_key", [], Shown().leases(0)),
        ("overdue_key", [], Shown().overdue(0)),
        ("owners_key", [], Shown().owners(0)),
        ("dead_key", ["<target>"], Shown().dead("<target>", 0)),
        ("dead_targets_key", [], Shown().dead_targets(0)),
        ("paused_key", [], Shown().paused(0)),
        ("sweeper_key", [], Shown().sweeper(0)),
        ("meta_key", [], Shown().partition_meta(0)),
        ("control_key", ["<worker_id>"], Shown().control("<worker_id>", 0)),
    ],
)
def test_lua_forms_the_key_that_python_forms(
    lua: Any, function: str, arguments: list[str], row: str
) -> None:
    """Each function of the include that forms a key is compared."""
    assert lua[function](BASE, *arguments) == row


def test_lua_forms_the_keys_of_events_as_those_of_a_run(lua: Any) -> None:
    """The keys that an append writes to are the run's hash and its journal."""
    formed = lua.keys_of_events(BASE, "<run_id>")
    own = lua.keys_of_run(BASE, "<run_id>")
    assert {name: formed[name] for name in formed} == {
        name: own[name] for name in ("run", "journal")
    }


def test_lua_forms_the_keys_that_a_run_has(lua: Any) -> None:
    """Without payloads that it does not have, and records of programs of an earlier version."""
    own = lua.keys_of_run(BASE, "<run_id>")
    payloads = SimpleNamespace(input="2", result=False, checkpoint=False)
    run = SimpleNamespace(key=own["run"], payloads=payloads)
    formed = lua.keys_it_has(BASE, "<run_id>", run, False)
    assert dict(formed) == {name: own[name] for name in ("run", "journal", "input")}
    assert lua.keys_it_has(BASE, "<run_id>", run, True)["producers"] == own["producers"]


def test_every_function_of_the_include_is_compared_with_python(lua: Any) -> None:
    """A new function that forms a key needs a case above."""
    assert {name for name in lua if name.endswith("_key")} == {
        "run_key",
        "journal_key",
        "restoring_key",
        "producer_key",
        "input_key",
        "result_key",
        "checkpoint_key",
        "producers_key",
        "queue_key",
        "wake_key",
        "idle_key",
        "index_key",
        "state_index_key",
        "target_index_key",
        "tenant_index_key",
        "expiring_key",
        "leases_key",
        "overdue_key",
        "owners_key",
        "dead_key",
        "dead_targets_key",
        "paused_key",
        "sweeper_key",
        "meta_key",
        "control_key",
    }


def test_no_script_forms_a_key_elsewhere() -> None:
    """Only keys.lua puts names of keys together."""
    folder = script_folder()
    formed = re.compile(r"""\.\.\s*':[a-z]|base\s*\.\.""")
    strangers = [
        path.name
        for path in sorted(folder.rglob("*.lua"))
        if path.name != "keys.lua" and formed.search(path.read_text(encoding="utf-8"))
    ]
    assert strangers == []


@pytest.mark.parametrize("prefix", ["", ":", "a b", "{a}", "a{", "a\n", "é", "-a", "a" * 65, "a*"])
def test_a_prefix_that_could_break_a_key_is_refused(prefix: str) -> None:
    """Braces, spaces, newlines and more raise StoreConfigurationError."""
    with pytest.raises(StoreConfigurationError, match="key_prefix"):
        Keys(prefix)


def test_a_prefix_may_end_in_a_colon() -> None:
    """The key then has a single colon after it."""
    assert Keys("team:a:").run("r") == "team:a:{0}:run:r"
