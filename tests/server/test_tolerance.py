"""Additions of clients that mean nothing: byte order marks, and nulls."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from murmur_streams.server import ServerOptions
from murmur_streams.server.inputs import parse_json
from murmur_streams.wire import requests
from tests.server.serving import task

MARK = b"\xef\xbb\xbf"
JSON = {"Content-Type": "application/json"}
GIVEN: dict[type[BaseModel], dict[str, Any]] = {
    requests.Task: {},
    requests.SubmitRequest: {"target": "fine", "task": {}},
    requests.RunRequest: {"task": {}},
    requests.GatherRequest: {"tasks": []},
    requests.CancelRequest: {},
}
"""Each body of the server, with its required members alone."""
ROUTES = {
    "/submit": (task(), {"priority": 0, "is_group": False, "delay": 0}),
    "/agents/fine/run": ({"task": {"input": 1}}, {}),
    "/agents/fine/gather": ({"tasks": []}, {"max_concurrency": 1}),
    "/groups/crew/run": ({"task": {"input": 1}}, {}),
}


def optional(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not field.is_required()]


def test_a_byte_order_mark_is_passed_over() -> None:
    """Windows tools put one before UTF-8; RFC 8259 lets a reader ignore it."""
    assert parse_json(MARK + b'{"a": "\xef\xbb\xbf"}', ServerOptions()) == {"a": "\ufeff"}


async def test_a_marked_body_submits_a_run(client: httpx.AsyncClient) -> None:
    """The body is read as if the mark were not there."""
    content = MARK + json.dumps(task()).encode()
    response = await client.post("/submit", content=content, headers=JSON)
    assert response.status_code == 200, response.text


async def test_a_marked_optional_body_is_read(client: httpx.AsyncClient) -> None:
    """A cancel, whose body may be left out, reads one with a mark, too."""
    run_id = (await client.post("/submit", json=task())).json()["run_id"]
    content = MARK + b'{"reason": "enough"}'
    await client.post(f"/runs/{run_id}/cancel", content=content, headers=JSON)
    snapshot = (await client.get(f"/runs/{run_id}")).json()
    assert snapshot["cancel_reason"] == "enough"


def test_every_body_is_among_those_tried() -> None:
    """A new body of the server is tried for nulls as well."""
    given = requests.RequestBody.__subclasses__()
    assert set(given) == set(GIVEN)


@pytest.mark.parametrize("model", GIVEN)
def test_a_null_is_the_same_as_leaving_it_out(model: type[BaseModel]) -> None:
    """Programs that serialize every member send null for what they were not given."""
    required = GIVEN[model]
    nulls = dict.fromkeys(optional(model))
    assert model.model_validate(required | nulls) == model.model_validate(required)


@pytest.mark.parametrize("model", GIVEN)
def test_the_schema_takes_a_null_as_the_server_does(app: FastAPI, model: type[BaseModel]) -> None:
    """A client that is made from the OpenAPI document may send it."""
    schema = app.openapi()["components"]["schemas"][model.__name__]
    for name in optional(model):
        rule = schema["properties"][name]
        takes_any = not rule.keys() - {"title", "description", "default"}
        assert takes_any or {"type": "null"} in rule["anyOf"], name


@pytest.mark.parametrize("path", ROUTES)
async def test_nulls_change_no_answer(client: httpx.AsyncClient, path: str) -> None:
    """Each route answers with the same status, whether a member is null or left out."""
    body, others = ROUTES[path]
    plain = await client.post(path, json=body, headers={"Prefer": "wait=0"})
    nulls = body | dict.fromkeys([*others, "request_id"])
    answered = await client.post(path, json=nulls, headers={"Prefer": "wait=0"})
    assert answered.status_code == plain.status_code, answered.text


@pytest.mark.parametrize("member", ["target", "task"])
async def test_a_null_for_a_required_member_is_refused(
    client: httpx.AsyncClient, member: str
) -> None:
    """A null does not count as a required member."""
    response = await client.post("/submit", json=task() | {member: None})
    assert response.status_code == 422
    assert f"{member}: " in response.json()["detail"]


async def test_a_null_for_an_unknown_member_is_refused(client: httpx.AsyncClient) -> None:
    """A misspelt name is a mistake, whatever its value."""
    response = await client.post("/submit", json=task() | {"priorty": None})
    assert response.status_code == 422
    assert "priorty" in response.json()["detail"]
