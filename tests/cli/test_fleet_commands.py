"""`cancel`, `result`, `retry`, `dead`, `workers`, `pause` and the options of `submit`."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import TargetRule
from murmur_streams.stores.redis.store import RedisRunStore
from tests.cli.conftest import CommandLine
from tests.cli.waiting import objects, wait_until

WHY = '{"text": "why?"}'


def shown(line: CommandLine, run_id: str) -> dict[str, Any]:
    [found] = objects(line.run("show", run_id, "--json", "--last", "100").stdout)
    return found


def begun(line: CommandLine, run_id: str) -> bool:
    return any(entry.get("name") == "begun" for entry in shown(line, run_id)["journal"])


@pytest.fixture
def dead_runs(in_store: Any) -> None:
    """Two dead letters of ``odd``, one of ``even``."""

    async def make(store: RedisRunStore) -> None:
        for number, target in enumerate(["odd", "even", "odd"], 1):
            await store.submit(f"r-{number}", target, input={"n": number}, metadata={"for": "you"})
            await store.finish(
                f"r-{number}", RunState.FAILED, error="no luck", dead="retries_exhausted"
            )

    in_store(make)


def letters(in_store: Any) -> set[str]:
    async def read(store: RedisRunStore) -> set[str]:
        return {letter.run_id for letter in (await store.dead_letters().list()).letters}

    return in_store(read)


def test_a_run_that_waits_is_cancelled_at_once(line: CommandLine) -> None:
    """`cancel` prints that it was not running, and records the reason."""
    line.run("submit", "nobody", "--run-id", "r-1")
    done = line.run("cancel", "r-1", "--reason", "wrong customer")
    assert (done.returncode, done.stdout) == (0, "r-1 is cancelled: it was not running\n")
    found = shown(line, "r-1")
    assert (found["state"], found["cancel_reason"]) == ("cancelled", "wrong customer")
    assert found["cancel_requested_at"] is not None
    again = line.run("cancel", "r-1")
    assert (again.returncode, "r-1 is cancelled" in again.stdout) == (0, True)


def test_a_running_run_is_cancelled_and_says_how(line: CommandLine) -> None:
    """`cancel --wait` prints the three times of the cancel."""
    line.worker()
    line.run("submit", "waits", "--run-id", "r-1")
    wait_until(lambda: begun(line, "r-1"), "it has begun")
    [reported] = objects(line.run("cancel", "r-1", "--wait", "1m", "--json").stdout)
    assert (reported["run_id"], reported["state"], reported["how"]) == (
        "r-1",
        "cancelled",
        "handler",
    )
    assert reported["requested"] <= reported["delivered"] <= reported["stopped"]
    assert "delivered" in line.run("show", "r-1").stdout


def test_a_handler_that_does_not_heed_a_cancel_is_left_behind(line: CommandLine) -> None:
    """The run ends after the grace time."""
    line.worker()
    line.run("submit", "stubborn", "--run-id", "r-1")
    wait_until(lambda: begun(line, "r-1"), "it has begun")
    [reported] = objects(line.run("cancel", "r-1", "--wait", "60", "--json").stdout)
    assert (reported["state"], reported["how"]) == ("cancelled", "grace")


def test_a_run_that_has_ended_cannot_be_cancelled(line: CommandLine) -> None:
    """`cancel` prints how it had ended, and its exit code is 1."""
    line.worker()
    line.run("submit", "echo", WHY, "--follow", "--run-id", "r-1")
    late = line.run("cancel", "r-1")
    assert (late.returncode, late.stdout) == (1, "r-1 had ended before: completed\n")


def test_result_is_the_output_or_the_error(line: CommandLine) -> None:
    """The output is on stdout with code 0, the error on stderr with code 1."""
    line.worker()
    line.run("submit", "echo", WHY, "--run-id", "good")
    line.run("submit", "boom", WHY, "--run-id", "bad")
    good, bad = line.run("result", "good", "--wait"), line.run("result", "bad", "--wait")
    assert (good.returncode, json.loads(good.stdout), good.stderr) == (0, {"answer": "why?"}, "")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr == "failed: RuntimeError: why?\n"
    [reported] = objects(line.run("result", "bad", "--json").stdout)
    assert (reported["state"], reported["result"]["error_type"]) == ("failed", "RuntimeError")


def test_result_of_a_run_that_has_not_ended(line: CommandLine) -> None:
    """Without --wait the exit code is 2."""
    line.run("submit", "nobody", "--run-id", "r-1")
    early = line.run("result", "r-1")
    assert (early.returncode, early.stdout) == (2, "")
    assert "run 'r-1' is pending and has no result yet; --wait waits" in early.stderr
    line.run("cancel", "r-1", "--reason", "no need")
    ended = line.run("result", "r-1", "--wait")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == "cancelled: no need\n"


def test_ctrl_c_while_waiting_for_a_result_leaves_the_run_alone(
    line: CommandLine, in_store: Any
) -> None:
    """The command ends, and the run goes on."""
    line.run("submit", "nobody", "--run-id", "r-1")
    process = line.start("result", "r-1", "--wait")

    async def watched(store: RedisRunStore) -> bool:
        names = [client["cmd"] for client in await store.client.client_list()]
        return any(name.startswith("xread") for name in names)

    wait_until(lambda: in_store(watched), "it waits")
    process.send_signal(signal.SIGINT)
    _, reported = process.communicate(timeout=60)
    assert (process.returncode, "run r-1 goes on" in reported) == (130, True)
    assert shown(line, "r-1")["state"] == "pending"


def test_retry_is_a_new_run_with_the_same_input(line: CommandLine) -> None:
    """Its metadata has the id of the old run."""
    line.worker()
    line.run("submit", "boom", WHY, "--follow", "--run-id", "r-1")
    again = line.run("retry", "r-1", "--follow", "--json")
    assert again.returncode == 1
    first, *_, last = objects(again.stdout)
    assert first["retry_of"] == "r-1"
    assert last["result"]["error"] == "why?"
    assert shown(line, first["run_id"])["metadata"] == {"retry_of": "r-1"}
    assert line.run("retry", "r-1", "--run-id", "r-2").stdout == "r-2\n"
    once_more = line.run("retry", "r-1", "--run-id", "r-2")
    assert (once_more.returncode, "'r-2' already exists" in once_more.stderr) == (2, True)


@pytest.mark.usefixtures("dead_runs")
def test_dead_letters_are_listed_and_shown(line: CommandLine) -> None:
    """The list can be limited, and restricted to a target."""
    listed = objects(line.run("dead", "list", "--json").stdout)
    assert {letter["run_id"] for letter in listed} == {"r-1", "r-2", "r-3"}
    assert len(objects(line.run("dead", "list", "--limit", "2", "--json").stdout)) == 2
    [even] = objects(line.run("dead", "list", "--target", "even", "--json").stdout)
    assert (even["run_id"], even["reason"]) == ("r-2", "retries_exhausted")
    assert (even["input"], even["metadata"]) == ({"n": 2}, {"for": "you"})
    text = line.run("dead", "show", "r-2").stdout
    for line_of_text in ("reason    retries_exhausted", "error     no luck", '"n": 2'):
        assert line_of_text in text
    assert "dead      retries_exhausted" in line.run("show", "r-2").stdout
    assert shown(line, "r-2")["dead"] == "retries_exhausted"
    missing = line.run("dead", "show", "r-9")
    assert (missing.returncode, "r-9" in missing.stderr) == (2, True)


@pytest.mark.usefixtures("dead_runs")
def test_dead_letters_are_requeued_once(line: CommandLine, in_store: Any) -> None:
    """A second requeue finds none."""
    new_id = line.run("dead", "requeue", "r-1").stdout.strip()
    assert shown(line, new_id)["metadata"] == {"for": "you", "requeued_from": "r-1"}
    assert letters(in_store) == {"r-2", "r-3"}
    again = line.run("dead", "requeue", "r-1")
    assert again.returncode == 2
    assert "no dead letter of run 'r-1': it was requeued or purged" in again.stderr
    requeued = objects(line.run("dead", "requeue", "--all", "--yes", "--json").stdout)
    assert {each["requeued_from"] for each in requeued} == {"r-2", "r-3"}
    assert letters(in_store) == set()


@pytest.mark.usefixtures("dead_runs")
def test_purging_many_is_confirmed(line: CommandLine, in_store: Any) -> None:
    """`dead purge` needs --yes where it cannot ask."""
    refused = line.run("dead", "purge", "--all")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert line.run("dead", "purge").returncode == 2
    assert line.run("dead", "purge", "r-1", "--all").returncode == 2
    assert letters(in_store) == {"r-1", "r-2", "r-3"}
    assert line.run("dead", "purge", "--target", "odd", "--yes").stdout == "2 purged\n"
    assert letters(in_store) == {"r-2"}
    assert objects(line.run("dead", "purge", "r-2", "--json").stdout) == [{"purged": 1}]


@pytest.mark.usefixtures("dead_runs")
def test_purging_an_unknown_run_is_a_mistake(line: CommandLine, in_store: Any) -> None:
    """The letters of the other named runs are removed, and the exit code is 2."""
    done = line.run("dead", "purge", "r-1", "r-9")
    assert (done.returncode, done.stdout) == (2, "1 purged\n")
    assert "no dead letter of run 'r-9'" in done.stderr
    assert letters(in_store) == {"r-2", "r-3"}


def test_workers_says_who_is_there_and_what_they_hold(line: CommandLine) -> None:
    """`workers` lists id, slots and runs of each."""
    assert "no worker is running" in line.run("workers").stdout
    process = line.worker("--id", "blue", "--concurrency", "3")
    line.run("submit", "waits", "--run-id", "r-1")

    def listed() -> list[dict[str, Any]]:
        return objects(line.run("workers", "--json").stdout)

    wait_until(lambda: bool(listed()) and listed()[0]["held"] == 1, "it reports the run")
    [found] = listed()
    assert found["id"].startswith("blue")
    assert (found["pid"], found["concurrency"], found["runs"]) == (process.pid, 3, ["r-1"])
    assert "1 of 3" in line.run("workers").stdout
    line.run("cancel", "r-1", "--wait", "60")
    process.terminate()
    assert process.wait(timeout=60) == 0
    assert listed() == []


def test_a_paused_agent_begins_no_run_until_it_is_resumed(line: CommandLine) -> None:
    """Runs of other agents are executed meanwhile."""
    assert line.run("pause", "echo").stdout == "echo is paused\n"
    assert objects(line.run("pause", "--json").stdout) == [{"paused": ["echo"]}]
    line.worker()
    line.run("submit", "echo", WHY, "--run-id", "r-1")
    assert line.run("submit", "boom", WHY, "--follow").returncode == 1
    assert shown(line, "r-1")["state"] == "pending"
    assert line.run("resume", "echo").stdout == "echo runs\n"
    assert line.run("resume", "echo").stdout == "echo was not paused: it runs\n"
    assert line.run("result", "r-1", "--wait").returncode == 0
    assert line.run("pause").stdout == "nothing is paused\n"


def test_a_delayed_run_waits(line: CommandLine) -> None:
    """`show` and `runs` have its due time."""
    line.run("submit", "nobody", "--delay", "2h", "--priority", "7", "--run-id", "r-1")
    due = datetime.fromisoformat(shown(line, "r-1")["due_at"])
    hours = (due - datetime.now(UTC)).total_seconds() / 3600
    assert 1.9 < hours <= 2
    assert shown(line, "r-1")["priority"] == 7
    assert "due in" in line.run("runs").stdout


def test_a_run_begins_at_a_moment_and_has_a_deadline(line: CommandLine) -> None:
    """`submit` takes --at and --deadline."""
    at = datetime(2126, 1, 31, 9, tzinfo=UTC)
    submitted = line.run(
        *("submit", "nobody", "--at", at.isoformat(), "--deadline", "90", "--run-id", "r-1")
    )
    assert submitted.returncode == 0, submitted.stderr
    found = shown(line, "r-1")
    assert datetime.fromisoformat(found["due_at"]) == at
    assert datetime.fromisoformat(found["deadline_at"]) == at + timedelta(seconds=90)
    text = line.run("show", "r-1").stdout
    assert "due       2126-01-31 09:00" in text


def test_the_same_key_is_the_same_run(line: CommandLine) -> None:
    """Another input under the key is refused."""
    argv = ("submit", "nobody", "1", "--idempotency-key", "order-7")
    first, second = line.run(*argv).stdout, line.run(*argv).stdout
    assert first == second != ""
    other = line.run("submit", "nobody", "2", "--idempotency-key", "order-7")
    assert (other.returncode, other.stdout) == (2, "")


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("--delay", "soon"), "'soon' is not a duration"),
        (("--at", "tomorrow"), "'tomorrow' is not a moment"),
        (("--priority", "101"), "equal to 100"),
        (("--delay", "1", "--at", "2126-01-31T09:00"), "not both"),
        (("--deadline", "-5"), "'-5' is not a duration"),
        (("--delay", "3661d"), "'3661d' is too long: it must be from 0 to ten years"),
        (("--delay", "12345678901234567890"), "from 0 to ten years"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    line: CommandLine, argv: tuple[str, ...], why: str
) -> None:
    """The error has the value and the rule."""
    refused = line.run("submit", "nobody", *argv)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert why in " ".join(refused.stderr.replace("│", " ").split())


def test_a_wait_that_is_too_long_is_refused(line: CommandLine) -> None:
    """The error says that ten years are the most."""
    refused = line.run("cancel", "r-1", "--wait", "9" * 400)
    assert refused.returncode == 2
    assert "from 0 to ten years" in " ".join(refused.stderr.replace("│", " ").split())


def test_show_prints_the_first_and_the_last_failures(line: CommandLine, in_store: Any) -> None:
    """Three of each are printed; --json has all of them."""

    async def fail(store: RedisRunStore) -> None:
        await store.submit("r-1", "work")
        for number in range(1, 11):
            [claim] = (await store.queue(60).claim("w", [TargetRule("work", 0)], 1)).claims
            await store.release("r-1", claim.token, "failed", error=f"broke {number}")

    in_store(fail)
    reported = line.run("show", "r-1", "--last", "0").stdout.splitlines()
    found = [each.split(maxsplit=1)[1] for each in reported if each.startswith("attempt   ")][1:]
    assert found == [
        *(f"{number} broke {number}" for number in (1, 2, 3)),
        "… and 4 more",
        *(f"{number} broke {number}" for number in (8, 9, 10)),
    ]
    assert len(shown(line, "r-1")["errors"]) == 10


def test_the_fencing_token_is_never_shown(line: CommandLine) -> None:
    """Each command that shows a run leaves it out."""
    line.worker()
    line.run("submit", "echo", WHY, "--follow", "--run-id", "r-1")
    token = line.run("redis", "HGET", "murmur:runs:{0}:run:r-1", "claim").stdout.strip()
    entries = line.run("redis", "XRANGE", "murmur:runs:{0}:journal:r-1", "-", "+").stdout
    assert "claim" in entries, "the journal has it"
    printed = "".join(
        line.run(*argv).stdout
        for argv in (
            ("show", "r-1", "--last", "100"),
            ("show", "r-1", "--last", "100", "--json"),
            ("tail", "r-1", "--json"),
        )
    )
    assert "claim" not in printed
    assert not token or token not in printed


def test_errors_are_json_for_programs(line: CommandLine) -> None:
    """With --json, stderr has one JSON object with the class of the error."""
    for argv, kind in (
        (("show", "nobody", "--json"), "RunNotFoundError"),
        (("--json", "show", "nobody"), "RunNotFoundError"),
        (("show", "--json"), "UsageError"),
        (("nonsense", "--json"), "UsageError"),
        (("worker", "nowhere:fleet", "--json"), "FleetNotFoundError"),
    ):
        failed = line.run(*argv)
        [reported] = objects(failed.stderr)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert (reported["error"], reported["exit_code"]) == (kind, 2)
        assert reported["message"]
