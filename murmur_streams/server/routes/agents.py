"""The routes of agents and groups: listings, and runs whose outcome is the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import JsonValue

from murmur_streams.core.model.limits import check_target
from murmur_streams.fleet.agents import Agent
from murmur_streams.server.auth import Principal
from murmur_streams.server.inputs import READERS, Submitter, ThePod, body_of, pod_of
from murmur_streams.server.openapi import make_router, preferring, problems, request_body
from murmur_streams.server.pod import Pod
from murmur_streams.server.responses import problem_of
from murmur_streams.server.run_requests import ended, idempotency_key, preferred_wait, submit, until
from murmur_streams.stores.own_tasks import end_tasks
from murmur_streams.wire import problems as kinds
from murmur_streams.wire.answers import AgentSchema, AnyOutcome
from murmur_streams.wire.problems import ProblemError
from murmur_streams.wire.requests import GatherRequest, RunRequest, SubmitRequest, Task

router = make_router("agents")
RunBody = Annotated[RunRequest, Depends(body_of(RunRequest))]
GatherBody = Annotated[GatherRequest, Depends(body_of(GatherRequest))]
_RUNNING = problems(
    kinds.NO_AGENT, kinds.IN_FLIGHT, kinds.KEY_REUSED, kinds.TOO_MANY, kinds.DRAINING, kinds.TIMEOUT
)


@router.get("/agents", dependencies=READERS)
async def list_agents(pod: ThePod) -> list[str]:
    """The names of the agents."""
    return sorted(pod.fleet.agents)


@router.get("/agents/{name}/schema", responses=problems(kinds.NO_AGENT), dependencies=READERS)
async def read_schema(pod: ThePod, name: str) -> AgentSchema:
    """The input and output of an agent."""
    agent = _agent(pod, name)
    return AgentSchema(
        name=agent.name, input_type=agent.input_schema(), output_type=agent.output_schema()
    )


@router.post(
    "/agents/{name}/run",
    responses=_RUNNING,
    openapi_extra=request_body(RunRequest) | preferring("Idempotency-Key"),
)
async def run_agent(who: Submitter, request: Request, name: str, body: RunBody) -> AnyOutcome:
    """Queue a run, and answer with its outcome.

    After the time of ``Prefer: wait=N``, or the server's, the answer is 504: the run goes on, and
    the problem has its ``run_id``.
    """
    runs = _RequestRuns(request, who, name)
    with pod_of(request).streaming(who):
        run_id = await runs.submit(body.task, idempotency_key(request))
        [outcome] = await runs.outcomes([runs.outcome(run_id)])
        return outcome


@router.post(
    "/agents/{name}/gather",
    responses=_RUNNING,
    openapi_extra=request_body(GatherRequest) | preferring("Idempotency-Key"),
)
async def gather_agent(
    who: Submitter, request: Request, name: str, body: GatherBody
) -> list[AnyOutcome]:
    """Queue a run for each task, at most ``max_concurrency`` at a time; their outcomes in order.

    The time counts for all of them together. After it, or a problem with one task, no more runs
    are submitted, and those that were go on.
    """
    runs, key = _RequestRuns(request, who, name, body.max_concurrency), idempotency_key(request)
    with pod_of(request).streaming(who):
        return await runs.outcomes(
            runs.run(number, task, key) for number, task in enumerate(body.tasks)
        )


@router.get("/groups", dependencies=READERS)
async def list_groups() -> list[str]:
    """The names of the groups."""
    return []


@router.get("/groups/{name}/topology", responses=problems(kinds.NO_GROUP), dependencies=READERS)
async def read_topology(name: str) -> dict[str, JsonValue]:
    """How a group's agents follow each other."""
    raise _no_group(name)


@router.post(
    "/groups/{name}/run",
    responses=problems(kinds.NO_GROUP),
    openapi_extra=request_body(RunRequest) | preferring("Idempotency-Key"),
)
async def run_group(who: Submitter, name: str, body: RunBody) -> AnyOutcome:
    """Queue a run of a group, and answer with its outcome."""
    del who, body
    raise _no_group(name)


class _RequestRuns:
    """The runs of one request, which waits for their outcomes."""

    def __init__(self, request: Request, who: Principal, name: str, at_once: int = 1) -> None:
        _agent(pod_of(request), name)
        self.request = request
        self.who = who
        self.run_ids: list[str] = []
        self._name = name
        self._slots = asyncio.Semaphore(at_once)

    async def submit(self, task: Task, key: str | None) -> str:
        """Submit a run; return its id."""
        body = SubmitRequest.model_validate({"target": self._name, "task": task})
        submission = await submit(self.request, self.who, body, key)
        self.run_ids.append(submission.run_id)
        return submission.run_id

    async def outcome(self, run_id: str) -> AnyOutcome:
        """Wait for a run's end; return its outcome."""
        pod = pod_of(self.request)
        store = await pod.store()
        await ended(store, await store.snapshot(run_id))
        return await pod.outcome(await store.snapshot(run_id))

    async def run(self, number: int, task: Task, key: str | None) -> AnyOutcome:
        """Submit one of several runs and wait for its outcome; at most ``at_once`` do so together.

        A problem with its task names the task's number.
        """
        # Each task has its own key. A client's key has no space, so it cannot be one of these.
        its_key = None if key is None else f"{key} {number}"
        async with self._slots:
            try:
                run_id = await self.submit(task, its_key)
            except Exception as error:
                problem = problem_of(error)
                if not problem.kind.shows_detail:
                    raise
                text = f"tasks.{number}: {problem}"
                raise ProblemError(
                    problem.kind, text, headers=problem.headers, **problem.members
                ) from error
            return await self.outcome(run_id)

    async def outcomes(self, works: Iterable[Coroutine[Any, Any, AnyOutcome]]) -> list[AnyOutcome]:
        """The outcomes in order, within the request's time; after it, the runs go on."""
        pod = pod_of(self.request)
        most = preferred_wait(self.request, pod.options.run_seconds)
        tasks = [asyncio.create_task(work) for work in works]
        try:
            seconds = pod.options.run_seconds if most is None else most
            if await until(self.request, _wait_for_all(tasks), seconds):
                return [task.result() for task in tasks]
        finally:
            await end_tasks(tasks)
        first = next(iter(self.run_ids), None)
        members: dict[str, Any] = {"run_ids": self.run_ids, "run_id": first}
        if pod.drain.is_set():
            text = "this pod is shutting down; what was submitted goes on"
            raise ProblemError(kinds.DRAINING, text, **members)
        raise ProblemError(kinds.TIMEOUT, "it took too long; what was submitted goes on", **members)


async def _wait_for_all(tasks: list[asyncio.Task[AnyOutcome]]) -> None:
    await asyncio.gather(*tasks)


def _agent(pod: Pod, name: str) -> Agent:
    agent = pod.fleet.agents.get(check_target(name))
    if agent is None:
        raise ProblemError(kinds.NO_AGENT, f"this fleet has no agent {name!r}", agent=name)
    return agent


def _no_group(name: str) -> ProblemError:
    return ProblemError(kinds.NO_GROUP, f"this fleet has no group {check_target(name)!r}")
