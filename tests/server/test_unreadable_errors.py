"""A submission whose check raises anything is answered, and the pod goes on."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import BaseModel, field_validator

from murmur_streams import Fleet
from tests.server.serving import check_problem


class UnsaidError(Exception):
    """An error that has no text and recurses wherever it is asked for something."""

    def __str__(self) -> str:
        raise SystemExit(7)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class UnsaidValueError(UnsaidError, ValueError):
    pass


RAISED: dict[str, type[BaseException]] = {
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "unsaid": UnsaidError,
    "unsaid-value": UnsaidValueError,
}


class Odd(BaseModel):
    raises: str

    @field_validator("raises")
    @classmethod
    def check(cls, name: str) -> str:
        raise RAISED[name]


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("path", ["/submit", "/agents/odd/run"])
async def test_a_check_that_raises_anything_is_answered(
    client: httpx.AsyncClient, fleet: Fleet, name: str, path: str
) -> None:
    """A validator of the input raises what no log takes, or exits: the pod answers all the same."""

    @fleet.agent
    async def odd(given: Odd) -> None: ...

    body: dict[str, Any] = {"task": {"input": {"raises": name}}}
    if path == "/submit":
        body["target"] = "odd"
    answer = await client.post(path, json=body)
    assert answer.status_code in {422, 500}
    check_problem(answer, answer.status_code)
    assert (await client.get("/agents")).status_code == 200
