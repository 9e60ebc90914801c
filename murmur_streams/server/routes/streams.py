"""The event streams: of one run, of several, and of all."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request

from murmur_streams.core.model.cursors import Cursor
from murmur_streams.core.model.entries import EntryType
from murmur_streams.core.model.errors import CursorError
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.identifiers import check_run_id, check_target
from murmur_streams.server.auth.access import Admin, StreamReader, pod_of
from murmur_streams.server.following import (
    Telling,
    check_feed_cursor,
    check_run_cursor,
    follow_feed,
    follow_run,
    resume_after,
)
from murmur_streams.server.many import ManyCursor, tell_many
from murmur_streams.server.openapi import problems
from murmur_streams.server.problems import ProblemError
from murmur_streams.server.stream_response import EventStream
from murmur_streams.wire.problems import (
    BAD_CURSOR,
    CURSOR_GAP,
    CURSOR_RESET,
    DAMAGED,
    INVALID,
    NOT_ACCEPTABLE,
    RUN_NOT_FOUND,
    TOO_MANY,
)

router = APIRouter(tags=["streams"])

_TAKEN = ("text/event-stream", "text/*", "*/*")
_Q_OF_ZERO = re.compile(r"q\s*=\s*0(\.0*)?")


async def event_streams_are_taken(request: Request) -> None:
    """Refuse who takes no event stream, with 406."""
    ranges = [part for line in request.headers.getlist("accept") for part in line.split(",")]
    named = [part for part in ranges if part.strip()]
    if named and not _is_taken(named):
        raise ProblemError(NOT_ACCEPTABLE, "this is an event stream: accept text/event-stream")


async def resume_cursor(
    request: Request,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="Go on after the message with this id; `-1` or empty: from the start.",
        ),
    ] = None,
    after: Annotated[
        str | None, Query(description="The same, for who sends no header; the header wins.")
    ] = None,
) -> str | None:
    """Where the reader is; None: at the start."""
    headers, queries = (
        request.headers.getlist("last-event-id"),
        request.query_params.getlist("after"),
    )
    if max(len(headers), len(queries)) > 1:
        raise ProblemError(BAD_CURSOR, "send one Last-Event-ID, or one ?after=")
    return resume_after(last_event_id if headers else after)


Resume = Annotated[str | None, Depends(resume_cursor)]
Control = Annotated[
    bool,
    Query(description="Also send `gap` and `reset` instead of refusing or closing, and `end`."),
]
Runs = Annotated[list[str], Query(alias="run", description="A run's id; once for each run.")]
Targets = Annotated[
    list[str] | None, Query(alias="target", description="Only runs of these targets.")
]
Types = Annotated[
    list[EntryType | RunEventType] | None, Query(alias="type", description="Only these entries.")
]


_KINDS = (BAD_CURSOR, NOT_ACCEPTABLE, CURSOR_GAP, CURSOR_RESET, INVALID, TOO_MANY)
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Messages, each with the `id` to resume after."},
    204: {"description": "Everything has ended and nothing comes after the cursor."},
    **problems(*_KINDS, RUN_NOT_FOUND, DAMAGED),
}
_FEED = {status: told for status, told in _STREAM.items() if status not in {204, 404, 500}}


@router.get(
    "/runs/{run_id}/stream",
    summary="Stream a run",
    response_class=EventStream,
    status_code=200,
    responses=_STREAM,
)
async def stream_run(
    who: StreamReader,
    _: Annotated[None, Depends(event_streams_are_taken)],
    request: Request,
    run_id: str,
    after: Resume,
    control: Control = False,
) -> EventStream:
    """The run's events so far, or after a cursor, and then as they come, until it has ended.

    Resumes on any pod; it may be closed at any time and is then to be opened again.
    """
    pod = pod_of(request)
    if after is not None:
        Cursor.parse(after)

    async def source() -> Telling | None:
        run = await pod.find(who, run_id)
        store = await pod.store()
        if run.seal is None and not control:
            await check_run_cursor(store, run_id, after)
        told = Telling(follow_run(store, run_id, after, control=control), control=control)
        return await _unless_empty(told, may_wait=run.seal is None)

    return EventStream(pod, who, source)


@router.get(
    "/stream",
    summary="Stream several runs",
    response_class=EventStream,
    status_code=200,
    responses=_STREAM,
)
async def stream_runs(
    who: StreamReader,
    _: Annotated[None, Depends(event_streams_are_taken)],
    request: Request,
    runs: Runs,
    after: Resume,
    control: Control = False,
) -> EventStream:
    """The events of several runs, over one connection, until all have ended.

    Each message's `id` stands for all of the runs: resume with the same ones.
    """
    pod = pod_of(request)
    if len(runs) > pod.options.max_runs_per_stream:
        raise ProblemError(INVALID, f"at most {pod.options.max_runs_per_stream} runs in one stream")
    if len(set(runs)) < len(runs):
        raise ProblemError(INVALID, "a run is named twice")
    cursor = ManyCursor.parse(after, map(check_run_id, runs))

    async def source() -> Telling | None:
        found = await asyncio.gather(*(pod.find(who, run_id) for run_id in cursor.open_runs))
        store = await pod.store()
        if not control:
            cursors = [(run.run_id, cursor.after(run.run_id)) for run in found]
            await asyncio.gather(*(check_run_cursor(store, *each) for each in cursors))
        told = tell_many(store, cursor, control=control)
        return await _unless_empty(told, may_wait=any(run.seal is None for run in found))

    return EventStream(pod, who, source)


@router.get(
    "/events/stream",
    summary="Stream everything",
    response_class=EventStream,
    status_code=200,
    responses=_FEED,
)
async def stream_feed(
    who: Admin,
    _: Annotated[None, Depends(event_streams_are_taken)],
    request: Request,
    after: Resume,
    targets: Targets = None,
    types: Types = None,
    control: Control = False,
) -> EventStream:
    """The journal entries of all runs, from the oldest kept or after a cursor; it has no end."""
    pod = pod_of(request)
    wanted = None if targets is None else [check_target(target) for target in targets]

    async def source() -> Telling:
        store = await pod.store()
        try:
            await check_feed_cursor(store, after)
        except CursorError:
            if not control:
                raise
        return Telling(follow_feed(store, after, wanted, types, control=control), control=control)

    return EventStream(pod, who, source)


async def _unless_empty(told: Telling, *, may_wait: bool) -> Telling | None:
    """What is told; None when that is nothing, which is known only where nothing is waited for."""
    if may_wait or await told.has_any():
        return told
    return None


def _is_taken(ranges: list[str]) -> bool:
    """Whether the ranges of an Accept header have event streams: the closest one tells."""
    kinds = {kind: not never for kind, never in map(_read_range, ranges)}
    return next((kinds[kind] for kind in _TAKEN if kind in kinds), False)


def _read_range(media_range: str) -> tuple[str, bool]:
    """Its media type, and whether its q is 0."""
    kind, *parameters = (part.strip().lower() for part in media_range.split(";"))
    return kind, any(_Q_OF_ZERO.fullmatch(parameter) for parameter in parameters)
