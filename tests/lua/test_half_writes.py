"""A script that is refused has written nothing, whatever it is that it is refused for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from murmur_streams.core.model.errors import (
    RunDamagedError,
    RunNotFoundError,
    StoreConfigurationError,
    StoreError,
)
from murmur_streams.stores.redis.connection.failures import clear_error, code_of
from murmur_streams.stores.redis.script_rights import commands_in, needed_by
from murmur_streams.stores.redis.scripts import HOT_COMMANDS
from tests.lua.headers import COMMANDS, SCRIPTS, reachable_code
from tests.lua.sandbox import EVENTS, WAYS, Sandbox, sandbox
from tests.lua.scenarios import OTHER, RUN, SCENARIOS, Stage
from tests.servers import Space

LATER = {
    "queue": "tend puts the run into its queue, or claim takes it out, when they come past it",
    "leases": "tend drops the row of a run without a claim when its time is over",
    "owners": "sweep drops the row of a run without an owner when its time is over",
}
DAMAGED_RUN: dict[str, str] = dict.fromkeys(
    ("run", "journal", "input", "checkpoint"),
    "a damaged run is reported, and loses the row it was found by: it would stop those behind it",
)
HARMLESS: dict[str, dict[str, str]] = {
    "claim": DAMAGED_RUN,
    "tend": DAMAGED_RUN | {"index": "the runs that it lacks are looked at once they are in it"},
    "sweep": DAMAGED_RUN,
}
"""The damage that a key of another type may leave, by script and by the first word of the key.
LATER applies to each script. Audit sees it, rebuild mends it, and it harms no other run."""

HARMLESS_FIELDS = {
    "push_event_late seal": "a field that is gone is one that was never set: the run is "
    "sealed once more, audit says so, and readers have ended at the first seal",
    "append_with_dirty_progress input_size": "the snapshot that the append writes has what the "
    "hash has; audit says so, and the input is still there",
    "append_with_dirty_progress input_sha256": "the same",
}
"""The same of a field of which no script can know what it was, and no rebuild, either."""

OPTIONAL = {"COPY"}
"""Commands without which a script does the same, only with more memory."""


def command_of(scenario: str) -> str:
    """The script or command that the scenario is about: the longest name that it begins with."""
    return max((name for name in [*SCRIPTS, *COMMANDS] if scenario.startswith(name)), key=len)


CALLS = [
    *((scenario, way) for scenario in SCENARIOS for way in WAYS),
    *((scenario, EVENTS) for scenario in SCENARIOS if command_of(scenario) in HOT_COMMANDS),
]
every_way = pytest.mark.parametrize(("scenario", "way"), CALLS)


@pytest.fixture
async def stage(space: Space) -> AsyncIterator[Stage]:
    """A stage on the test's server, which is emptied at the end: keys are damaged on it."""
    async with space.store(retry_seconds=0) as store:
        yield Stage(space, store)
    space.admin.flushall()


@pytest.fixture
async def box(stage: Stage, scenario: str, way: str) -> AsyncIterator[Sandbox]:
    """The moment before the scenario's call."""
    found = await sandbox(stage, SCENARIOS[scenario], way)
    yield found
    found.close()


def test_every_script_and_command_has_a_scenario() -> None:
    """One without it would not be tried by what follows."""
    tried = {command_of(scenario) for scenario in SCENARIOS}
    assert tried == {*SCRIPTS, *COMMANDS} - {"commit"}


@every_way
def test_a_scenario_is_about_what_it_is_named_after(box: Sandbox, scenario: str) -> None:
    """The call that was caught is of that script or command."""
    assert box.name == command_of(scenario)


@every_way
@pytest.mark.fault("F45")
def test_a_denied_command_is_refused_before_any_write(box: Sandbox, scenario: str) -> None:
    """Each command that the script may call is denied in turn: an error, and nothing is written."""
    touched, _ = box.touched()
    codes = {name: reachable_code(name) for name in (box.name, box.script)}
    commands = touched | commands_in("".join(codes.values()))
    needed = {each for name, code in codes.items() for each in needed_by(name, code)}
    halves: list[str] = []
    for command in sorted(commands - OPTIONAL):
        box.reset()
        before = box.dump()
        box.permit(f"-{command.lower()}")
        found = box.call()
        box.permit()
        if command not in touched | needed:
            continue  # A read that this call has no use for, and that no check asks for.
        if found.error is None or not box.is_unchanged(before, found):
            halves.append(f"{command}: {found}")
        else:
            assert isinstance(clear_error(found.error, "server"), StoreConfigurationError)
    assert halves == []


@every_way
async def test_a_user_without_optional_rights_is_served(stage: Stage, box: Sandbox) -> None:
    """Without them a journal takes more memory, and nothing else changes."""
    box.permit(*(f"-{command.lower()}" for command in OPTIONAL))
    found = box.call()
    box.permit()
    assert found.error is None
    assert await unmended(stage) == []


@every_way
async def test_a_key_of_another_type_leaves_no_half_write(
    stage: Stage, box: Sandbox, scenario: str
) -> None:
    """Each key that the script touches is replaced: it refuses, or writes what can be mended."""
    _, keys = box.touched()
    halves: list[str] = []
    for key in sorted(keys):
        box.reset()
        box.replace(key)
        before = box.dump()
        found = box.call()
        if found.error is not None:
            if not box.is_unchanged(before, found) or code_of(found.error) != "WRONGTYPE":
                halves.append(f"{key}: {found.error}")
        else:
            box.put_back(key)
            row = key.split("}:")[1].split(":")[0]
            if row not in LATER | HARMLESS.get(box.name, {}):
                halves += [f"{key}: {found.answer}: left {each}" for each in await problems(stage)]
            halves += [f"{key}: {found.answer}: {each}" for each in await unmended(stage)]
    assert halves == []


DAMAGES = {"removed": None, "text": "x", "negative": "-5", "huge": "9" * 20, "broken": "1.5"}


@pytest.mark.slow
@every_way
async def test_a_damaged_field_leaves_no_half_write(
    stage: Stage, box: Sandbox, scenario: str
) -> None:
    """Each field of the run's hash is damaged: the script refuses, or writes what can be mended."""
    box.reset()
    key = stage.keys.run(RUN)
    fields = stage.admin.hkeys(key)
    halves: list[str] = []
    for field in fields:
        for how, value in DAMAGES.items():
            box.reset()
            if value is None:
                stage.admin.hdel(key, field)
            else:
                stage.admin.hset(key, field, value)
            before = box.dump()
            found = box.call()
            what = f"{field.decode()} {how}"
            if found.error is not None:
                error = clear_error(found.error, "server")
                is_clean = box.is_unchanged(before, found)
                if not is_clean or not isinstance(error, RunDamagedError):
                    halves.append(f"{what}: {found.error}")
            elif f"{scenario} {field.decode()}" not in HARMLESS_FIELDS:
                halves += [f"{what}: {found.answer}: {each}" for each in await unmended(stage)]
    assert halves == []


async def problems(stage: Stage) -> list[Any]:
    """The problems that audit finds in the runs."""
    found: list[Any] = []
    for run_id in (RUN, OTHER):
        with contextlib.suppress(RunNotFoundError):
            found += (await stage.store.audit(run_id)).problems
    return found


async def unmended(stage: Stage) -> list[Any]:
    """The problems that audit finds in the runs after a rebuild."""
    found: list[Any] = []
    for run_id in (RUN, OTHER):
        try:
            await stage.store.rebuild(run_id)
            found += (await stage.store.audit(run_id)).problems
        except RunNotFoundError:
            continue
        except StoreError as error:
            found.append(error)
    return found
