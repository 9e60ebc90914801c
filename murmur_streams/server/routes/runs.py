"""The routes of runs: submit, list, read, cancel, delete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing, nullcontext
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from murmur_streams.core.model.errors import RunDamagedError, RunNotFoundError
from murmur_streams.core.model.run import Run, listing_key
from murmur_streams.core.model.states import RunState, RunStatus
from murmur_streams.server import inputs, run_requests
from murmur_streams.server.inputs import Admin, Canceller, Reader, Submitter, ThePod, pod_of
from murmur_streams.server.openapi import make_router, preferring, problems, request_body
from murmur_streams.server.responses import conditional_answer, json_answer, log_problem
from murmur_streams.server.stream_messages import resume_after
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire import answers
from murmur_streams.wire import problems as kinds
from murmur_streams.wire.requests import CancelRequest, SubmitRequest

router = make_router("runs")

MOST_PAGES = 20
"""The most pages of the store that are read for one page of the runs that a caller may see."""
LATE_SECONDS = 0.5
"""A run that has ended but has no seal gets one from the first reader that follows it: the shortest
wait for that."""

SubmitBody = Annotated[SubmitRequest, Depends(inputs.body_of(SubmitRequest))]
CancelBody = Annotated[CancelRequest, Depends(inputs.body_of(CancelRequest, is_optional=True))]
Limit = Annotated[int, Query(ge=1, le=500)]
After = Annotated[str | None, Query(description="A cursor; empty or -1: from the start.")]
_OF_CURSORS = problems(kinds.BAD_CURSOR, kinds.CURSOR_GAP, kinds.CURSOR_RESET)
REPLAYED = "Idempotent-Replayed"
WARNING = "Murmur-Warning"
"""A header, not a member of the body: clients of murmur-runtime know the body's members, and a
replay has the same body as the first answer."""


@router.post(
    "/submit",
    response_model=answers.Submitted,
    responses=problems(
        kinds.RUN_EXISTS, kinds.IN_FLIGHT, kinds.KEY_REUSED, kinds.NO_AGENT, kinds.NO_GROUP
    ),
    openapi_extra=request_body(SubmitRequest) | preferring("Idempotency-Key"),
)
async def submit_run(who: Submitter, request: Request, body: SubmitBody) -> Response:
    """Queue a run.

    With an Idempotency-Key the request may be repeated: it returns the same run as long as that run
    exists. Each tenant has its own keys. The work is the target, the input, the metadata, the
    priority, the deadline and when it is due; ``task.id`` and the two ``request_id`` only name the
    request. Other work under the same key is refused.

    With ``Prefer: wait=N`` the answer comes when the run has ended, or after N seconds.
    """
    pod, key = pod_of(request), run_requests.idempotency_key(request)
    submission = await run_requests.submit(request, who, body, key)
    seconds = run_requests.preferred_wait(request, pod.options.max_wait_seconds)
    accepted = answers.Submitted(run_id=submission.run_id)
    if seconds is not None:
        store = await pod.store()
        run = await store.snapshot(submission.run_id)
        await run_requests.until_ended(request, who, run, seconds)
        run = await store.snapshot(submission.run_id)
        accepted.state = run.state
        accepted.result = await pod.outcome(run) if run.state.is_terminal else None
    answer = json_answer(accepted, waited=seconds)
    if submission.is_replay:
        answer.headers[REPLAYED] = "true"
    warning = await submission.warning()
    if warning is not None:
        answer.headers[WARNING] = warning
    return answer


@router.get("/runs", responses=problems(kinds.BAD_CURSOR))
async def list_runs(
    who: Reader,
    pod: ThePod,
    state: RunState | None = None,
    target: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> answers.RunList:
    """List the caller's runs, newest first."""
    most = min(limit, pod.options.max_page)
    tenant = None if who.is_admin else who.tenant
    store, found, pages = await pod.store(), list[Run](), 0
    while True:
        page = await store.list_runs(
            state=state, target=target, tenant=tenant, limit=most, cursor=cursor
        )
        pages += 1
        found += [run for run in page.runs if who.sees(run.run_id, run.tenant)]
        last, cursor = cursor, page.cursor
        if cursor is None or len(found) >= most:
            break
        if pages >= MOST_PAGES and last is not None and _ms(cursor) < _ms(last):
            # The store's cursor would show another tenant's run id. This one has only its
            # millisecond, and everything newer than that millisecond has been read.
            found = [run for run in found if run.created_ms > _ms(cursor)]
            cursor = listing_key(_ms(cursor) + 1, "0")
            break
    if len(found) > most or (len(found) == most and cursor is not None):
        found = found[:most]
        cursor = listing_key(found[-1].created_ms, found[-1].run_id)
    return answers.RunList(runs=[*_readable(found)], next=cursor)


def _readable(runs: list[Run]) -> Iterator[answers.RunSnapshot]:
    """The snapshots of the runs; a listing leaves damaged runs out, as the store's does."""
    for run in runs:
        try:
            yield answers.RunSnapshot.of(run)
        except RunDamagedError as error:
            log_problem("a listing leaves a run out", error)


def _ms(cursor: str) -> int:
    return int(cursor.partition(":")[0])


@router.get(
    "/runs/{run_id}",
    response_model=answers.RunSnapshot,
    responses={304: {"description": "As it was"}},
)
async def read_run(who: Reader, request: Request, run_id: str) -> Response:
    """The snapshot of a run; with If-None-Match, only if it has changed."""
    return conditional_answer(
        request, answers.RunSnapshot.of(await pod_of(request).find(who, run_id))
    )


@router.get("/runs/{run_id}/status")
async def read_status(who: Reader, pod: ThePod, run_id: str) -> RunStatus:
    """The run's state and progress."""
    return (await pod.find(who, run_id)).status


@router.get("/runs/{run_id}/result", responses=problems(kinds.NOT_ENDED))
async def read_result(who: Reader, pod: ThePod, run_id: str) -> answers.AnyOutcome:
    """The run's output, or why it has none."""
    run = await pod.find(who, run_id)
    if not run.state.is_terminal:
        raise kinds.ProblemError(kinds.NOT_ENDED, f"run is {run.state}; result not yet available")
    return await pod.outcome(run)


@router.get("/runs/{run_id}/events", responses=_OF_CURSORS | problems(kinds.TOO_MANY))
async def read_events(
    who: Reader,
    request: Request,
    run_id: str,
    after: After = None,
    limit: Limit = 100,
    wait: Annotated[float, Query(ge=0, le=3600, description="Seconds, for the next event.")] = 0,
) -> answers.EventPage:
    """A page of the run's events; with ``wait``, the answer comes when there is one, or the end."""
    pod = pod_of(request)
    run = await pod.find(who, run_id)
    store, most = await pod.store(), min(limit, pod.options.max_page)
    page = await _events(store, run, resume_after(after), most)
    seconds = min(wait, pod.options.max_wait_seconds)
    if page.events or page.ended or not (seconds or run.state.is_terminal):
        return page
    # A request without ``wait`` does not count as an open stream, though it may wait for the seal.
    with pod.streaming(who) if seconds else nullcontext():
        news = _next_event(store, run_id, page.next)
        await run_requests.until(request, news, seconds or LATE_SECONDS)
    return await _events(store, await pod.find(who, run_id), page.next, most)


@router.get("/runs/{run_id}/journal", responses=_OF_CURSORS)
async def read_journal(
    who: Reader, pod: ThePod, run_id: str, after: After = None, limit: Limit = 100
) -> answers.JournalPage:
    """A page of the run's journal: its events, and all that changed it."""
    await pod.find(who, run_id)
    most, found = min(limit, pod.options.max_page), list[answers.Entry]()
    async with aclosing((await pod.store()).journal(run_id, after=resume_after(after))) as entries:
        async for entry in entries:
            if len(found) == most:
                return answers.JournalPage(entries=found, next=found[-1].cursor)
            found.append(answers.Entry.of(entry))
    return answers.JournalPage(entries=found, next=None)


@router.post(
    "/runs/{run_id}/cancel",
    response_model=answers.Cancelled,
    openapi_extra=request_body(CancelRequest, required=False) | preferring(),
)
async def cancel_run(who: Canceller, request: Request, run_id: str, body: CancelBody) -> Response:
    """Ask that a run end cancelled; one that has ended stays as it is.

    With ``Prefer: wait=N`` the answer comes when the run has ended, or after N seconds.
    """
    pod = pod_of(request)
    await pod.find(who, run_id)
    handle = pod.fleet.handle(run_id)
    reply = await handle.cancel(reason=body.reason)
    seconds = run_requests.preferred_wait(request, pod.options.max_wait_seconds)
    if seconds is not None and not reply.state.is_terminal:
        await run_requests.until_ended(request, who, await handle.snapshot(), seconds)
        # A second request changes nothing; its reply has the state of now.
        reply = await handle.cancel()
    return json_answer(answers.Cancelled(state=reply.state, how=reply.how), waited=seconds)


@router.delete("/runs/{run_id}", status_code=204, responses=problems(kinds.NOT_ENDED))
async def delete_run(who: Admin, pod: ThePod, run_id: str, force: bool = False) -> None:
    """Remove a run that has ended, or with ``force`` any; its streams end."""
    run = await pod.find(who, run_id)
    if not (run.state.is_terminal or force):
        raise kinds.ProblemError(kinds.NOT_ENDED, f"run is {run.state}; delete it with force=true")
    if not await (await pod.store()).delete(run_id, force=force):
        raise RunNotFoundError(run_id)


async def _events(store: WorkStore, run: Run, after: str | None, most: int) -> answers.EventPage:
    page = answers.EventPage(events=[], next=after or "", ended=False)
    async with aclosing(store.journal(run.run_id, after=after)) as entries:
        async for entry in entries:
            if entry.is_late:
                continue
            event = entry.event()
            if event is not None and len(page.events) == most:
                return page
            page.next, page.ended = entry.cursor, entry.is_seal
            page.events += [event] if event is not None else []
            if page.ended:
                return page
    # The cursor may be past the seal: that of a late entry.
    page.ended = run.seal is not None and int(page.next.rpartition("-")[2]) >= run.seal
    return page


async def _next_event(store: WorkStore, run_id: str, after: str) -> None:
    async with aclosing(store.stream(run_id, after=after)) as events:
        async for _ in events:
            return
