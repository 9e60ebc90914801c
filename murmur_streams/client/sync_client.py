"""Client: the calls of AsyncClient for programs without an event loop; each blocks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack

import httpx

from murmur_streams.client.async_client import AsyncClient, AsyncHandle
from murmur_streams.client.endpoint import ClientOptions, Endpoint
from murmur_streams.client.shell import BlockingHttp, Shell, run_now
from murmur_streams.wire.requests import ClientSubmitOptions

A = TypeVar("A", AsyncClient, AsyncHandle)
P = ParamSpec("P")
T = TypeVar("T")


class _Blocking(Generic[A]):
    """The blocking half of an object whose coroutines run over ``BlockingHttp``."""

    def __init__(self, asynchronous: A) -> None:
        self._asynchronous = asynchronous

    def __repr__(self) -> str:
        return repr(self._asynchronous).removeprefix("Async")


def _blocking(
    call: Callable[Concatenate[A, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[_Blocking[A], P], T]:
    """The blocking method of an asynchronous one, with its types and its docstring."""

    @wraps(call)
    def blocked(self: _Blocking[A], *args: P.args, **named: P.kwargs) -> T:
        return run_now(call(self._asynchronous, *args, **named))  # pyright: ignore[reportPrivateUsage]  # a method of it

    return blocked


def _blocking_stream(
    call: Callable[Concatenate[A, P], AsyncGenerator[T]],
) -> Callable[Concatenate[_Blocking[A], P], Generator[T]]:
    """The same for a method whose values come one after another."""

    @wraps(call)
    def blocked(self: _Blocking[A], *args: P.args, **named: P.kwargs) -> Generator[T]:
        return _values(call(self._asynchronous, *args, **named))  # pyright: ignore[reportPrivateUsage]  # a method of it

    return blocked


def _values(values: AsyncGenerator[T]) -> Generator[T]:
    try:
        while True:
            try:
                value = run_now(values.__anext__())
            except StopAsyncIteration:
                return
            yield value
    finally:
        run_now(values.aclose())


class Handle(_Blocking[AsyncHandle]):
    """Polls, streams and cancels one run; see ``AsyncHandle`` for what each method promises."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._asynchronous.run_id

    @property
    def warning(self) -> str | None:
        """The server's warning about the submission, as ``AsyncHandle.warning``."""
        return self._asynchronous.warning

    status = _blocking(AsyncHandle.status)
    snapshot = _blocking(AsyncHandle.snapshot)
    result = _blocking(AsyncHandle.result)
    any_result = _blocking(AsyncHandle.any_result)
    output = _blocking(AsyncHandle.output)
    stream = _blocking_stream(AsyncHandle.stream)
    events = _blocking(AsyncHandle.events)
    journal = _blocking(AsyncHandle.journal)
    last_entries = _blocking(AsyncHandle.last_entries)
    cancel = _blocking(AsyncHandle.cancel)
    delete = _blocking(AsyncHandle.delete)


class Client(_Blocking[AsyncClient]):
    """The calls of AsyncClient, which documents the arguments. May be used by many threads."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
        trust_env: bool = True,
        **options: Unpack[ClientOptions],
    ) -> None:
        endpoint = Endpoint.of(base_url, token, options, trust_env=trust_env)
        super().__init__(AsyncClient.over(Shell(endpoint, BlockingHttp(endpoint, transport))))

    def submit(
        self,
        target: str,
        input: object = None,  # noqa: A002  # the interface's name
        **options: Unpack[ClientSubmitOptions],
    ) -> Handle:
        """Create a run and queue it; arguments and errors as ``AsyncClient.submit``."""
        return Handle(run_now(self._asynchronous.submit(target, input, **options)))

    def handle(self, run_id: str) -> Handle:
        """A handle on a run that was submitted anywhere."""
        return Handle(self._asynchronous.handle(run_id))

    list_runs = _blocking(AsyncClient.list_runs)
    agents = _blocking(AsyncClient.agents)
    ticket = _blocking(AsyncClient.ticket)
    stream_many = _blocking_stream(AsyncClient.stream_many)
    feed = _blocking_stream(AsyncClient.feed)
    close = _blocking(AsyncClient.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
