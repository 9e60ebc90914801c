"""When and before what a run is executed, and submissions that may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from murmur_streams import Fleet, RunContext
from murmur_streams.core.model.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    RegistryError,
    RunExistsError,
    RunNotFoundError,
)
from murmur_streams.core.model.states import RunState
from murmur_streams.core.model.work import TargetRule
from murmur_streams.fleet.submission import idempotent_run_id, request_digest, sent_form
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.wire.requests import SubmitOptions
from tests.fleet.queueing import take
from tests.fleet.working import working
from tests.servers import Space


@pytest.mark.fault("F1")
async def test_the_same_key_and_request_is_the_same_run(fleet: Fleet, space: Space) -> None:
    """While it waits and after its end, nothing is written."""
    first = await fleet.submit("fine", 1, idempotency_key="order 7")
    before = space.dump_without_records()
    again = await fleet.submit("fine", 1, idempotency_key="order 7")
    assert again.run_id == first.run_id
    assert space.dump_without_records() == before
    async with working(fleet):
        assert await again.output(timeout=30) == 2
        ended = await fleet.submit("fine", 1, idempotency_key="order 7")
        assert await ended.output(timeout=30) == 2
    assert (await ended.snapshot()).attempt == 1


async def test_many_at_once_submit_one_run(fleet: Fleet) -> None:
    """Twenty submissions of a key at once create one run."""
    handles = await asyncio.gather(
        *(fleet.submit("fine", 1, idempotency_key="key") for _ in range(20))
    )
    assert len({handle.run_id for handle in handles}) == 1
    page = await (await fleet.store()).list_runs()
    assert len(page.runs) == 1


async def test_the_same_key_with_another_input_is_refused(fleet: Fleet, space: Space) -> None:
    """The error has the id of the existing run."""
    first = await fleet.submit("fine", 1, idempotency_key="order 7")
    before = space.dump_without_records()
    with pytest.raises(IdempotencyConflictError, match="'order 7' of 'fine'") as caught:
        await fleet.submit("fine", 2, idempotency_key="order 7")
    assert caught.value.run_id == first.run_id
    assert isinstance(caught.value, RegistryError)
    assert space.dump_without_records() == before


async def test_a_key_belongs_to_its_target(space: Space) -> None:
    """The same key of two agents is two runs."""
    async with Fleet(space.url, key_prefix=space.prefix) as fleet:
        one = await fleet.submit("one", idempotency_key="key")
        two = await fleet.submit("two", idempotency_key="key")
    assert one.run_id != two.run_id
    assert idempotent_run_id("one", "key") == one.run_id


async def test_a_key_belongs_to_its_tenant(fleet: Fleet) -> None:
    """The same key of two tenants is two runs."""
    runs = {
        tenant: await fleet.submit("fine", 1, idempotency_key="key", tenant=tenant)
        for tenant in (None, "acme", "acme.2")
    }
    assert len({run.run_id for run in runs.values()}) == 3
    for tenant, run in runs.items():
        again = await fleet.submit("fine", 1, idempotency_key="key", tenant=tenant)
        assert again.run_id == run.run_id == idempotent_run_id("fine", "key", tenant)
        assert (await again.snapshot()).tenant == tenant


def test_a_key_of_no_tenant_makes_the_id_that_it_always_made() -> None:
    """The id of a key must never change."""
    assert idempotent_run_id("fine", "order 7") == "idem-16e45d85b64dbd417c6cd250663cc87e"


async def test_the_run_of_a_key_is_hidden_from_other_tenants(fleet: Fleet) -> None:
    """A key whose run id belongs to another tenant's run is a conflict."""
    wanted = idempotent_run_id("fine", "key", "acme")
    await fleet.submit("fine", 1, run_id=wanted, tenant="beta")
    with pytest.raises(IdempotencyConflictError):
        await fleet.submit("fine", 1, idempotency_key="key", tenant="acme")


async def test_the_fleet_lists_the_runs_of_a_tenant(fleet: Fleet) -> None:
    """fleet.sync.list takes the tenant."""
    mine = await fleet.submit("fine", 1, tenant="acme")
    await fleet.submit("fine", 1, tenant="beta")
    await fleet.submit("fine", 1)
    listed = await asyncio.to_thread(fleet.sync.list, tenant="acme")
    await asyncio.to_thread(fleet.sync.close)
    assert [run.run_id for run in listed.runs] == [mine.run_id]


async def test_a_key_whose_run_has_just_gone_is_free(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the run expires during the submission, a new one is created."""
    first = await fleet.submit("fine", 1, idempotency_key="key")
    snapshot: Callable[..., Any] = RedisRunStore.snapshot
    asked: list[str] = []

    async def is_gone_by_then(self: RedisRunStore, run_id: str) -> Any:
        if not asked:
            asked.append(run_id)
            await self.delete(run_id, force=True)
            raise RunNotFoundError(run_id)
        return await snapshot(self, run_id)

    monkeypatch.setattr(RedisRunStore, "snapshot", is_gone_by_then)
    again = await fleet.submit("fine", 2, idempotency_key="key")
    assert asked == [first.run_id] == [again.run_id]
    assert await (await fleet.store()).get_input(again.run_id) == 2


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"idempotency_key": ""}, "1 to 1,024"),
        ({"idempotency_key": "x" * 1_025}, "1,025 characters"),
        ({"idempotency_key": 5}, "idempotency_key is 5, but must be text"),
        ({"idempotency_key": "a", "run_id": "b"}, "not both"),
        ({"metadata": ["a"]}, r"metadata is \['a'\], but must be a mapping"),
        ({"delay": 1, "at": datetime.now(tz=UTC)}, "not both"),
        ({"delay": -1}, "delay is -1"),
        ({"delay": "soon"}, "delay is 'soon'"),
        ({"at": datetime(2030, 1, 1)}, "zone"),  # noqa: DTZ001  # that is what is refused
        ({"deadline": 0}, "deadline is 0"),
        ({"tenant": "a b"}, "tenant 'a b' is refused"),
        ({"tenant": "a/b", "idempotency_key": "a"}, "tenant 'a/b' is refused"),
        ({"tenant": ""}, "tenant '' is refused"),
        ({"priority": 101}, "priority is 101"),
        ({"priority": 0.5}, "priority is 0.5"),
    ],
)
async def test_an_option_out_of_bounds_writes_nothing(
    fleet: Fleet, space: Space, options: dict[str, Any], name: str
) -> None:
    """An option that is out of bounds is rejected before anything is written."""
    await fleet.submit("fine", 1)
    before = space.dump_without_records()
    with pytest.raises(InvalidInputError, match=name):
        await fleet.submit("fine", 1, **options)
    assert space.dump_without_records() == before


async def test_an_unknown_option_is_a_mistake(fleet: Fleet) -> None:
    """It raises TypeError with its name."""
    with pytest.raises(TypeError, match="dealy"):
        await fleet.submit("fine", 1, dealy=5)  # pyright: ignore[reportCallIssue]


async def test_a_delayed_run_starts_when_it_is_due_and_no_sooner(fleet: Fleet) -> None:
    """A wake-up token makes the idle worker look in time: by itself, it would look much later."""
    async with working(fleet):
        delayed = await fleet.submit("fine", 1, delay=timedelta(seconds=0.4))
        at = await fleet.submit("fine", 1, at=datetime.now(tz=UTC) + timedelta(seconds=0.4))
        far = await fleet.submit("fine", 1, delay=3600)
        for handle in (delayed, at):
            assert await handle.output(timeout=30) == 2
            run = await handle.snapshot()
            assert run.due_ms is not None
            assert run.started_ms is not None
            assert run.started_ms >= run.due_ms > run.created_ms
        assert (await far.snapshot()).state is RunState.PENDING


async def test_a_deadline_counts_from_when_the_run_is_due(fleet: Fleet) -> None:
    """The agent's deadline, or the one that is given."""

    @fleet.agent(deadline=60)
    async def hurried() -> None: ...

    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 60),
        ({"delay": 100}, 160),
        ({"deadline": timedelta(seconds=7)}, 7),
        ({"delay": 100, "deadline": 7}, 107),
    ]
    for options, seconds in cases:
        run = await (await fleet.submit(hurried, **options)).snapshot()
        assert run.deadline_ms is not None
        assert abs(run.deadline_ms - run.created_ms - seconds * 1000) <= 1


async def test_the_more_urgent_runs_come_first(fleet: Fleet) -> None:
    """Claims come in the order of priority."""
    priorities = [0, -100, 5, 100, 1]
    for priority in priorities:
        await fleet.submit("fine", 1, run_id=f"p{priority}", priority=priority)
    claims = await take((await fleet.store()).queue(60), "worker", 9, "fine")
    assert [claim.run_id for claim in claims] == ["p100", "p5", "p1", "p0", "p-100"]


async def test_nothing_starves(fleet: Fleet, space: Space) -> None:
    """A step of priority is worth a minute: what has waited longer than that is before it."""
    await fleet.submit("fine", 1, run_id="old")
    await fleet.submit("fine", 1, run_id="urgent", priority=1)
    queue = space.keys.queue("fine", 0)
    score = space.admin.zscore(queue, "old")
    assert score is not None
    space.admin.zadd(queue, {"old": score - 61_000})
    claims = await take((await fleet.store()).queue(60), "worker", 9, "fine")
    assert [claim.run_id for claim in claims] == ["old", "urgent"]


async def test_a_paused_agents_runs_wait_and_others_do_not(fleet: Fleet) -> None:
    """The resume wakes a worker for them."""

    @fleet.agent
    async def other(number: int) -> int:
        return -number

    await fleet.pause(other)
    await fleet.pause(other)
    assert await fleet.paused() == {"other"}
    async with working(fleet):
        paused = await fleet.submit(other, 7)
        assert await (await fleet.submit("fine", 1)).output(timeout=30) == 2
        queue = (await fleet.store()).queue(60)
        claimed = await queue.claim("asks", [TargetRule("other")], 1)
        assert (claimed.claims, claimed.next_due_seconds) == ([], None)
        assert (await paused.snapshot()).attempt == 0
        await fleet.resume("other")
        assert await paused.output(timeout=30) == -7
    assert await fleet.paused() == set()


async def test_what_is_under_way_goes_on_when_its_agent_is_paused(fleet: Fleet) -> None:
    """A pause concerns only the begin of executions."""
    began, opened = asyncio.Event(), asyncio.Event()

    @fleet.agent
    async def waits(run: RunContext) -> int:
        began.set()
        await opened.wait()
        return run.attempt

    async with working(fleet):
        handle = await fleet.submit(waits)
        await began.wait()
        await fleet.pause(waits)
        opened.set()
        assert await handle.output(timeout=30) == 1
        await fleet.resume(waits)


async def test_a_run_id_is_still_taken_once(fleet: Fleet) -> None:
    """A second submission under an id raises RunExistsError."""
    await fleet.submit("fine", 1, run_id="mine")
    with pytest.raises(RunExistsError):
        await fleet.submit("fine", 1, run_id="mine")


class Order(BaseModel):
    """An input that its type fills in: another id and another time for each reading."""

    model_config = ConfigDict(alias_generator=to_camel)

    order_number: int
    request: UUID = Field(default_factory=uuid4)
    at: datetime = Field(default_factory=lambda: datetime.now(tz=UTC))
    tags: set[str] = Field(default_factory=set[str])


@pytest.fixture
def orders(fleet: Fleet) -> Fleet:
    @fleet.agent
    async def order(order: Order) -> int:
        return order.order_number

    return fleet


@pytest.mark.parametrize(
    "given",
    [
        lambda: {"orderNumber": 7, "tags": ["a", "b"]},
        lambda: Order.model_validate({"orderNumber": 7, "tags": ["b", "a"]}),
        lambda: {"tags": {"a", "b"}, "orderNumber": 7},
    ],
    ids=["json", "model", "set"],
)
async def test_what_was_sent_decides_a_key(orders: Fleet, given: Callable[[], Any]) -> None:
    """Values that the type fills in do not count, and neither does the order of members."""
    first = await orders.submit("order", given(), idempotency_key="key")
    again = await orders.submit("order", given(), idempotency_key="key")
    assert again.run_id == first.run_id


async def test_a_set_has_one_form_in_every_process(orders: Fleet) -> None:
    """The order of a set is the process's: two orders of the same set are one request."""
    names = [f"name-{number}" for number in range(50)]
    other = Order.model_validate({"orderNumber": 7, "tags": names})
    assert sent_form(other, None) == {"orderNumber": 7, "tags": sorted(names)}


@pytest.mark.parametrize(
    "options",
    [{"metadata": {"a": 2}}, {"priority": 4}, {"delay": 61}, {"deadline": 91}, {"delay": None}],
)
async def test_other_options_under_a_key_are_refused(
    fleet: Fleet, space: Space, options: SubmitOptions
) -> None:
    """The whole request is compared, as over HTTP."""
    whole = SubmitOptions(
        idempotency_key="key", metadata={"a": 1}, priority=3, delay=60, deadline=90
    )
    first = await fleet.submit("fine", 1, **whole)
    assert (await fleet.submit("fine", 1, **whole)).run_id == first.run_id
    before = space.dump_without_records()
    with pytest.raises(IdempotencyConflictError, match="other options"):
        await fleet.submit("fine", 1, **(whole | options))
    assert space.dump_without_records() == before


async def test_a_moment_under_a_key_is_the_same_in_every_zone(fleet: Fleet) -> None:
    """``at`` is compared as a moment."""
    moment = datetime(2100, 1, 1, tzinfo=UTC)
    there = moment.astimezone(timezone(timedelta(hours=1)))
    first = await fleet.submit("fine", 1, idempotency_key="key", at=moment)
    again = await fleet.submit("fine", 1, idempotency_key="key", at=there)
    assert again.run_id == first.run_id
    await first.cancel()


async def test_the_digest_of_a_request_never_changes() -> None:
    """Two releases compare digests with each other: this one is kept for ever."""
    assert request_digest("order", {"b": 1, "a": [True, None, "é"]}, metadata={"x": 1.5}) == (
        "9ba3ce6632591ee9406ed79e201f3e171bf3d822003b989a4815fcf521ee6075"
    )
    moment = datetime(2100, 1, 1, tzinfo=UTC)
    assert request_digest("a", None, priority=3, at=moment, deadline_seconds=90) == (
        "386a5b10f3b2a04bdaab1b56ac70e89f7b9fc19ef671ec298d30e81b41d7b738"
    )


async def test_a_run_without_a_digest_is_compared_by_its_input(fleet: Fleet) -> None:
    """Runs that an earlier release submitted have no digest."""
    wanted = idempotent_run_id("fine", "key")
    await (await fleet.store()).submit(wanted, "fine", input=1)
    assert (await fleet.submit("fine", 1, idempotency_key="key")).run_id == wanted
    with pytest.raises(IdempotencyConflictError):
        await fleet.submit("fine", 2, idempotency_key="key")
