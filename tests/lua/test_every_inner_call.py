"""In a commit of many runs an error is raised at every inner call in turn, whatever causes it.

The command that is hit answers with the error. All others have their answers and effects, the
record has the answers, and a repeat of the call changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis.exceptions import RedisError

from murmur_streams.core.model.errors import RunNotFoundError
from murmur_streams.stores.redis.script_rights import FREEING_COMMANDS
from murmur_streams.stores.redis.scripts import load_scripts
from tests.lua.batches import BATCHES
from tests.lua.headers import COMMANDS
from tests.lua.sandbox import COMMAND_AT, SCRIPT, Sandbox
from tests.lua.scenarios import Stage
from tests.servers import Space

PARTS = 4
"""The calls are divided among so many tests, for processes that run side by side."""
EXPECTED_CALLS = 250
"""At least so many inner calls has the batch: fewer would mean that they were not counted."""
COUNTED = """\
local calls, current, hit_in = 0, '', ''
local function count()
  calls = calls + 1
  if calls ~= tonumber(ARGV[#ARGV - 1]) then return end
  hit_in = current
  return true
end
local function counted_call(...)
  if count() then error(redis.acl_check_cmd and {err = ARGV[#ARGV]} or '-' .. ARGV[#ARGV], 0) end
  return redis.call(...)
end
local function counted_pcall(...)
  if count() then
    hit_in = hit_in .. ' optional'
    return {err = ARGV[#ARGV]}
  end
  return redis.pcall(...)
end
"""
"""ARGV ends with the number of the call that fails (0: none) and its error."""
ENDED = """\
answers[#answers + 1] = digits(calls)
answers[#answers + 1] = hit_in
return answers
"""
CONTAINED, DENIED = "WRONGTYPE planted", "NOPERM planted"
"""An error that a command may contain in one part of its work, and one that it must raise again."""


def counted_text() -> str:
    """The script, with each inner call through the functions above."""
    text = load_scripts()["commit"].text
    # The probes of servers before 7.0 are not counted: one of them takes back what another wrote,
    # and both are permitted or none.
    text = text.replace("redis.pcall('", "counted_pcall('")
    text = text.replace("redis.call(", "counted_call(").replace("(redis.call,", "(counted_call,")
    execute = "local function execute(name, run_id, at, checked)\n"
    assert text.count(execute) == 1
    text = text.replace(execute, f"{execute}  current = run_id .. ' ' .. name\n")
    assert text.endswith("return answers\n")
    return COUNTED + text.removesuffix("return answers\n") + ENDED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call of the counted script returned."""

    answers: list[str]
    calls: int
    hit: str
    """The run and the name of the command that was hit; "" for none."""
    is_optional: bool = False
    """The command looks at the error itself, and goes on."""


class Batch:
    """A commit of many runs, and the moment before it."""

    def __init__(self, stage: Stage, box: Sandbox) -> None:
        self.stage = stage
        self.box = box
        self._call: Any = stage.admin.register_script(counted_text())
        args = box.args
        self.commands: list[str] = []
        """Of each command its run and its name."""
        at = COMMAND_AT
        for _ in range(int(args[COMMAND_AT - 1])):
            self.commands.append(f"{args[at + 1]} {args[at]}")
            at += 3 + int(args[at + 2])
        self.run_ids = sorted({command.split()[0] for command in self.commands})
        self._feed = stage.keys.feed(0)
        self.record_key = stage.keys.producer(str(args[0]), 0)

    def call(self, failing: int = 0, why: str = DENIED) -> Outcome | RedisError:
        """Send it; the inner call of this number fails."""
        try:
            found = self._call(keys=self.box.keys, args=[*self.box.args, failing, why])
        except RedisError as error:
            return error
        tag, *answers = [each.decode() for each in found]
        if tag != "OK":
            return Outcome([tag], 0, "")
        # A repeat ends before the numbers are added.
        if len(answers) <= len(self.commands):
            return Outcome(answers, 0, "")
        *answers, calls, hit_in = answers
        hit = hit_in.removesuffix(" optional")
        return Outcome(answers, int(calls), hit, hit != hit_in)

    def record(self) -> str:
        return (self.stage.admin.get(self.record_key) or b"").decode()

    async def journal(self, run_id: str) -> list[str]:
        """The seqs and types of a run's entries."""
        entries = self.stage.admin.xrange(self.stage.keys.journal(run_id))
        return [
            f"{id_.split(b'-')[1].decode()} {fields[b'type'].decode()}" for id_, fields in entries
        ]

    async def problems(self, run_ids: list[str]) -> list[str]:
        """What audit finds in these runs, and a feed with a gap."""
        found: list[str] = []
        for run_id in run_ids:
            try:
                audited = await self.stage.store.audit(run_id)
            except RunNotFoundError:
                found.append(f"{run_id}: not found")
            else:
                found += [f"{run_id}: {problem}" for problem in audited.problems]
        numbers = [int(id_.split(b"-")[1]) for id_, _ in self.stage.admin.xrange(self._feed)]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            found.append(f"the feed is not dense: {numbers}")
        return found


@pytest.fixture
async def stage(space: Space) -> AsyncIterator[Stage]:
    """A stage on the test's server, which is emptied at the end."""
    async with space.store(retry_seconds=0) as store:
        yield Stage(space, store)
    space.admin.flushall()


@pytest.fixture
async def batch(stage: Stage, kind: str) -> AsyncIterator[Batch]:
    """The moment before the commit."""
    box = Sandbox(stage.space, await BATCHES[kind](stage), SCRIPT)
    yield Batch(stage, box)
    box.close()


@pytest.mark.parametrize("kind", ["all"])
async def test_the_batch_has_all_commands(batch: Batch) -> None:
    """Without an error all succeed, and the call's answers are recorded and repeated."""
    found = batch.call()
    assert isinstance(found, Outcome)
    assert {command.split()[1] for command in batch.commands} == {*COMMANDS} - {"restore"}
    odd = [answer for answer in found.answers if not re.fullmatch(r"(OK \w+\|?)+", answer)]
    assert odd == []
    assert found.calls > EXPECTED_CALLS
    assert await batch.problems([each for each in batch.run_ids if each != "g"]) == []


@pytest.mark.parametrize("kind", ["freeing"])
async def test_the_freeing_batch_has_all_freeing_commands(batch: Batch) -> None:
    """All succeed without an error."""
    found = batch.call()
    assert isinstance(found, Outcome)
    assert {command.split()[1] for command in batch.commands} == FREEING_COMMANDS
    assert [answer for answer in found.answers if not answer.startswith("OK ")] == []


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("why", [DENIED, pytest.param(CONTAINED, marks=pytest.mark.slow)])
@pytest.mark.fault("F20")
async def test_an_error_at_any_inner_call_is_one_commands_own(
    batch: Batch, why: str, part: int
) -> None:
    """Of the command that is hit; where the commit itself is hit, nothing is written."""
    box = batch.box
    box.reset()
    untouched = box.dump()
    good = batch.call()
    assert isinstance(good, Outcome)
    journals = {run_id: await batch.journal(run_id) for run_id in batch.run_ids}
    problems: list[str] = []
    for failing in range(1 + part, good.calls + 1, PARTS):
        box.reset()
        found = batch.call(failing, why)
        if isinstance(found, RedisError):
            wrong = whole_call(batch, untouched, found, is_last=failing == good.calls)
        else:
            wrong = await one_command(batch, good, found, journals, why)
        problems += [f"call {failing}: {each}" for each in wrong]
    assert problems == []


def whole_call(batch: Batch, untouched: Any, error: RedisError, *, is_last: bool) -> list[str]:
    """What is wrong after an error of the commit itself: at a read, or at a write of the record."""
    dump = batch.box.dump()
    if "planted" not in str(error):
        return [f"another error: {error}"]
    if not is_last:
        return [] if dump == untouched else ["something was written"]
    # The record was written before the commands: a repeat finds it and executes nothing.
    repeated = batch.call()
    is_same = batch.box.dump() == dump
    return [] if is_same and repeated == Outcome([], 0, "") else [f"executed again: {repeated}"]


async def one_command(
    batch: Batch, good: Outcome, found: Outcome, journals: dict[str, list[str]], why: str
) -> list[str]:
    """What is wrong after an error within one command."""
    wrong: list[str] = []
    hit_run = found.hit.split()[0]
    expected = zip(batch.commands, good.answers, found.answers, strict=True)
    for command, right, answer in expected:
        if command == found.hit:
            is_own = answer == f"ERROR {why}" or (
                why == DENIED and answer.startswith("ERROR NOPERM")
            )
            is_contained = answer == right and (why == CONTAINED or found.is_optional)
            if not (is_own or is_contained):
                wrong.append(f"{command} was hit and answered {answer}")
        elif command.split()[0] != hit_run and answer != right:
            wrong.append(f"{command} answered {answer} instead of {right}, as {found.hit} was hit")
    others = [run_id for run_id in batch.run_ids if run_id not in {hit_run, "g"}]
    wrong += await batch.problems(others)
    for run_id in others:
        journal = await batch.journal(run_id)
        if journal != journals[run_id]:
            wrong.append(f"the journal of {run_id} is {journal}, as {found.hit} was hit")
    n, answers = str(batch.box.args[1]), "\n".join(found.answers)
    if batch.record() != f"{n}\n{answers}\n\n":
        wrong.append(f"the record is {batch.record()!r}")
    before = batch.box.dump()
    repeated = batch.call()
    if repeated != Outcome(found.answers, 0, "") or batch.box.dump() != before:
        wrong.append(f"the repeat answered {repeated}")
    return wrong
