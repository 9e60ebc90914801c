"""``POST /runs/{run_id}/ticket``: a way into one run's stream, for who can send no headers."""

from __future__ import annotations

import dataclasses
import math

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from murmur_streams.server.auth.access import Reader, pod_of
from murmur_streams.server.auth.signed_tickets import seconds_left, sign_ticket
from murmur_streams.server.problems import ProblemError
from murmur_streams.wire.problems import NOT_FOUND

router = APIRouter()


class Ticket(BaseModel):
    """Good for opening the stream of one run, for as long as it says."""

    ticket: str = Field(description="To be sent as ?ticket= with GET /runs/{run_id}/stream.")
    expires_in: int = Field(description="Seconds in which a stream can be opened with it.", ge=0)


@router.post("/runs/{run_id}/ticket", summary="Get a ticket for a run's stream", tags=["streams"])
async def give_ticket(who: Reader, run_id: str, request: Request) -> Ticket:
    """A browser's EventSource sends no Authorization header: it sends ?ticket= instead.

    Any pod that has the same secret takes it. A stream that was opened with it goes on after it
    has expired, but ends with the credentials it was given for.
    """
    pod = pod_of(request)
    run = await pod.find(who, run_id)
    if pod.options.ticket_secret is None:
        raise ProblemError(NOT_FOUND, "this server gives no tickets: it has no ticket secret")
    seconds = seconds_left(who, pod.options.ticket_seconds)
    holder = dataclasses.replace(who, tenant=run.tenant, run_id=run_id)
    ticket = sign_ticket(pod.options.ticket_secret, holder, seconds)
    return Ticket(ticket=ticket, expires_in=math.floor(seconds))
