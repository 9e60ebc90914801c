"""``POST /submit``: queue a run, and with ``Prefer: wait`` wait for its end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from murmur_streams.server.answering import json_answer
from murmur_streams.server.auth.access import Submitter, pod_of
from murmur_streams.server.auth.principal import Principal
from murmur_streams.server.json_body import body_of
from murmur_streams.server.openapi import preferring, problems, request_body
from murmur_streams.server.submission import idempotency_key, submit
from murmur_streams.server.waiting import preferred_wait, until_ended
from murmur_streams.wire.answers import Submitted
from murmur_streams.wire.problems import IN_FLIGHT, KEY_REUSED, NO_AGENT, NO_GROUP, RUN_EXISTS
from murmur_streams.wire.requests import SubmitRequest

router = APIRouter(tags=["runs"])
REPLAYED = "Idempotent-Replayed"
WARNING = "Murmur-Warning"
"""A header, not a member of the body: clients of murmur-runtime know the body's members, and a
replay has the same body as the first answer."""


@router.post(
    "/submit",
    response_model=Submitted,
    responses=problems(RUN_EXISTS, IN_FLIGHT, KEY_REUSED, NO_AGENT, NO_GROUP),
    openapi_extra=request_body(SubmitRequest) | preferring("Idempotency-Key"),
)
async def submit_run(
    who: Submitter,
    request: Request,
    body: Annotated[SubmitRequest, Depends(body_of(SubmitRequest))],
) -> Response:
    """Queue a run.

    With an Idempotency-Key the request may be repeated: it returns the same run as long as that run
    exists. Each tenant has its own keys. The work is the target, the input, the metadata, the
    priority, the deadline and when it is due; ``task.id`` and the two ``request_id`` only name the
    request. Other work under the same key is refused.

    With ``Prefer: wait=N`` the answer comes when the run has ended, or after N seconds.
    """
    submission = await submit(request, who, body, idempotency_key(request))
    seconds = preferred_wait(request, pod_of(request).options.max_wait_seconds)
    if seconds is None:
        answer = json_answer(Submitted(run_id=submission.run_id), without={"state", "result"})
    else:
        answer = await _waited_answer(request, who, submission.run_id, seconds)
    if submission.is_replay:
        answer.headers[REPLAYED] = "true"
    warning = await submission.warning()
    if warning is not None:
        answer.headers[WARNING] = warning
    return answer


async def _waited_answer(request: Request, who: Principal, run_id: str, seconds: int) -> Response:
    pod = pod_of(request)
    store = await pod.store()
    await until_ended(request, who, await store.snapshot(run_id), seconds)
    run = await store.snapshot(run_id)
    result = await pod.outcome(run) if run.state.is_terminal else None
    body = Submitted(run_id=run_id, state=run.state, result=result)
    answer = json_answer(body, without=set() if result is not None else {"result"})
    answer.headers["Preference-Applied"] = f"wait={seconds}"
    return answer
