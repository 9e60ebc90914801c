"""The event streams of one run, of several and of all, and the tickets that open them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request

from murmur_streams.core.model.entries import Cursor, EntryType
from murmur_streams.core.model.errors import CursorError
from murmur_streams.core.model.events import RunEventType
from murmur_streams.core.model.limits import check_run_id, check_target
from murmur_streams.core.model.run import Run
from murmur_streams.server import stream_messages
from murmur_streams.server.auth import seconds_left, sign_ticket
from murmur_streams.server.inputs import Admin, Reader, StreamReader, ThePod
from murmur_streams.server.openapi import make_router, problems
from murmur_streams.server.stream_response import EventStream
from murmur_streams.stores.work_store import WorkStore
from murmur_streams.wire import problems as kinds
from murmur_streams.wire.answers import Ticket
from murmur_streams.wire.problems import ProblemError

router = make_router("streams")
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_ACCEPTED = ("text/event-stream", "text/*", "*/*")
_Q_OF_ZERO = re.compile(r"q\s*=\s*0(\.0*)?")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The query parameters of every stream."""

    after: str | None
    """The position after which it continues; None: the start."""
    control: bool


async def stream_options(
    request: Request,
    control: Annotated[
        bool,
        Query(description="Also send `gap` and `reset` instead of refusing or closing, and `end`."),
    ] = False,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="Go on after the message with this id; `-1` or empty: from the start.",
        ),
    ] = None,
    after: Annotated[
        str | None, Query(description="The same in the query; the header wins.")
    ] = None,
) -> StreamOptions:
    """Answer 406 if the Accept header excludes ``text/event-stream``; read the options."""
    ranges = [part for line in request.headers.getlist("accept") for part in line.split(",")]
    named = [part for part in ranges if part.strip()]
    if named and not _are_accepted(named):
        text = "this is an event stream: accept text/event-stream"
        raise ProblemError(kinds.NOT_ACCEPTABLE, text)
    return StreamOptions(
        stream_messages.resume_after(after if last_event_id is None else last_event_id), control
    )


Options = Annotated[StreamOptions, Depends(stream_options)]
Runs = Annotated[list[str], Query(alias="run", description="A run's id; once for each run.")]
Targets = Annotated[
    list[str] | None, Query(alias="target", description="Only runs of these targets.")
]
Types = Annotated[
    list[EntryType | RunEventType] | None, Query(alias="type", description="Only these entries.")
]

_KINDS = (kinds.BAD_CURSOR, kinds.NOT_ACCEPTABLE, kinds.CURSOR_GAP, kinds.CURSOR_RESET)
_FEED = {
    200: {"description": "Messages, each with the `id` to resume after."},
    **problems(*_KINDS, kinds.INVALID, kinds.TOO_MANY),
}
_STREAM = {
    204: {"description": "Everything has ended and nothing comes after the cursor."},
    **_FEED,
    **problems(kinds.RUN_NOT_FOUND, kinds.DAMAGED),
}


def _get_stream(path: str, summary: str, responses: dict[int | str, dict[str, Any]]) -> _Decorator:
    return router.get(
        path, summary=summary, response_class=EventStream, status_code=200, responses=responses
    )


@_get_stream("/runs/{run_id}/stream", "Stream a run", _STREAM)
async def stream_run(who: StreamReader, options: Options, pod: ThePod, run_id: str) -> EventStream:
    """The run's events so far, or after a cursor, and then as they come, until it has ended.

    Resumes on any pod; it may be closed at any time and is then to be opened again.
    """
    after, control = options.after, options.control
    if after is not None:
        Cursor.parse(after)

    async def source() -> stream_messages.MessageStream | None:
        run = await pod.find(who, run_id)
        store = await pod.store()
        messages = stream_messages.MessageStream(
            stream_messages.follow_run(store, run_id, after, control=control), control=control
        )
        # The first message of a sealed run shows whether the cursor is good.
        cursors = [] if control or run.seal is not None else [(run_id, after)]
        return await _checked(store, [run], cursors, messages)

    return EventStream(pod, who, source)


@_get_stream("/stream", "Stream several runs", _STREAM)
async def stream_runs(who: StreamReader, options: Options, pod: ThePod, runs: Runs) -> EventStream:
    """The events of several runs, over one connection, until all have ended.

    Each message's `id` stands for all of the runs: resume with the same ones.
    """
    control = options.control
    if len(runs) > pod.options.max_runs_per_stream:
        most = f"at most {pod.options.max_runs_per_stream} runs in one stream"
        raise ProblemError(kinds.INVALID, most)
    if len(set(runs)) < len(runs):
        raise ProblemError(kinds.INVALID, "a run is named twice")
    cursor = stream_messages.ManyCursor.parse(options.after, map(check_run_id, runs))

    async def source() -> stream_messages.MessageStream | None:
        found = await asyncio.gather(*(pod.find(who, run_id) for run_id in cursor.open_runs))
        store = await pod.store()
        cursors = [] if control else [(run.run_id, cursor.after(run.run_id)) for run in found]
        return await _checked(
            store, found, cursors, stream_messages.follow_runs(store, cursor, control=control)
        )

    return EventStream(pod, who, source)


@_get_stream("/events/stream", "Stream everything", _FEED)
async def stream_feed(
    who: Admin, options: Options, pod: ThePod, targets: Targets = None, types: Types = None
) -> EventStream:
    """The journal entries of all runs, from the oldest or after a cursor; it has no end."""
    after, control = options.after, options.control
    wanted = None if targets is None else [check_target(target) for target in targets]

    async def source() -> stream_messages.MessageStream:
        store = await pod.store()
        try:
            if after is not None:
                await store.check_feed_cursor(after)
        except CursorError:
            if not control:
                raise
        entries = stream_messages.follow_feed(store, after, wanted, types, control=control)
        return stream_messages.MessageStream(entries, control=control)

    return EventStream(pod, who, source)


async def _checked(
    store: WorkStore,
    runs: list[Run],
    cursors: list[tuple[str, str | None]],
    messages: stream_messages.MessageStream,
) -> stream_messages.MessageStream | None:
    """The messages of runs, once these cursors have been checked.

    None if all runs have ended and no message comes, which is answered with 204. While a run may
    still have events, the first message could take hours: the answer is 200 at once.
    """
    await asyncio.gather(*(stream_messages.check_run_cursor(store, *cursor) for cursor in cursors))
    may_wait = any(run.seal is None for run in runs)
    return messages if may_wait or await messages.has_any() else None


@router.post("/runs/{run_id}/ticket", summary="Get a ticket for a run's stream")
async def give_ticket(who: Reader, pod: ThePod, run_id: str) -> Ticket:
    """A browser's EventSource sends no Authorization header: it sends ?ticket= instead.

    Any pod that has the same secret takes it. A stream that was opened with it goes on after it
    has expired, but ends with the credentials it was given for.
    """
    run = await pod.find(who, run_id)
    if pod.options.ticket_secret is None:
        raise ProblemError(kinds.NOT_FOUND, "this server gives no tickets: it has no ticket secret")
    seconds = seconds_left(who, pod.options.ticket_seconds)
    holder = replace(who, tenant=run.tenant, run_id=run_id)
    ticket = sign_ticket(pod.options.ticket_secret, holder, seconds)
    return Ticket(ticket=ticket, expires_in=math.floor(seconds))


def _are_accepted(ranges: list[str]) -> bool:
    """Whether an Accept header's ranges include event streams: the most specific range decides."""
    accepted = {kind: not never for kind, never in map(_read_range, ranges)}
    return next((accepted[kind] for kind in _ACCEPTED if kind in accepted), False)


def _read_range(media_range: str) -> tuple[str, bool]:
    """Its media type, and whether its q is 0."""
    kind, *parameters = (part.strip().lower() for part in media_range.split(";"))
    return kind, any(_Q_OF_ZERO.fullmatch(parameter) for parameter in parameters)
