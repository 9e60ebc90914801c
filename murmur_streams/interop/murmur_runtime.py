"""Our stores for the ``AgentServer`` of ``murmur-runtime`` 0.1.0, in that package's types.

::

    server = AgentServer(run_store=RedisRunStore("redis://localhost:6379/0"))

``murmur`` is imported when a store is made, not before. Its types are Any here: ``murmur-runtime``
pins another pydantic, so it is not installed where this package is type-checked.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Self, TypeAlias, cast

from pydantic import BaseModel, RootModel

from murmur_streams.core.model import errors, results
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.limits import check_target, error_text, new_run_id
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.local.memory.store import InMemoryRunStore as OurInMemoryRunStore
from murmur_streams.stores.protocol import RunStore
from murmur_streams.stores.redis.connection.maker import AnyClient
from murmur_streams.stores.redis.store import RedisRunStore as OurRedisRunStore

OWNER_LEASE_SECONDS = 30.0
"""How long after its last write the runs of a dead server fail."""

TheirStatus: TypeAlias = Any
"""``murmur.runs.RunStatus``."""
TheirState: TypeAlias = Any
"""``murmur.runs.RunState``."""
TheirProgress: TypeAlias = Any
"""``murmur.runs.RunProgress``."""
TheirEvent: TypeAlias = Any
"""``murmur.runs.RunEvent``."""
TheirResult: TypeAlias = Any
"""``murmur.types.AgentResult[BaseModel]`` or ``murmur.types.GroupResult``."""

_HINT = "AgentServer's types are needed here: pip install murmur-runtime==0.1.0"
_NAME = "murmur-runtime.agent"
"""Holds an agent's name that is not a valid target: a key of the metadata, an event's ``name``."""
_MODULES = ("murmur.runs", "murmur.types", "murmur.core.errors")
_SHOWN_CHARACTERS = 100


class MurmurRunStore:
    """A store of ours behind the interface and the types of ``murmur.runs``.

    Unknown and duplicate ids raise their RegistryError; all other errors are our own. Only events
    of their five types are streamed.

    Args:
        store: any store of ours; ``close`` closes it, too.

    Raises:
        ImportError: ``murmur-runtime`` is not installed.
    """

    def __init__(self, store: RunStore) -> None:
        self._murmur = _murmur()
        self._store = store

    @property
    def store(self) -> RunStore:
        """The store behind it. It offers what their interface lacks, such as listings."""
        return self._store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the store behind it; a second call does nothing."""
        await self._store.close()

    async def create(self, run_id: str, target: str) -> None:
        """Create a pending run."""
        checked = _target(target)
        metadata = None if checked == target else {_NAME: target}
        with self._their_errors():
            await self._store.create(run_id, checked, metadata=metadata)

    async def get_status(self, run_id: str) -> TheirStatus:
        """State and progress."""
        with self._their_errors():
            status = await self._store.get_status(run_id)
        return self._murmur.runs.RunStatus.model_validate(status.model_dump())

    async def get_result(self, run_id: str) -> TheirResult:
        """The result; None until there is one.

        A run that the store itself failed, because its server died, gets a result with that error.
        """
        with self._their_errors():
            result = await self._store.get_result(run_id)
            run = None if result is not None else await self._store.snapshot(run_id)
        if result is not None:
            return self._their_result(result)
        if run is None or (error := _error_of_the_store(run)) is None:
            return None
        lost = self._murmur.errors.SpawnError(error)
        return self._murmur.types.AgentResult(error=lost, agent_name=_name(run), task_id="")

    async def update_progress(self, run_id: str, progress: TheirProgress) -> None:
        """Replace the counters; has no effect after the end."""
        ours = RunProgress.model_validate(progress.model_dump())
        with self._their_errors():
            await write_again(lambda: self._store.update_progress(run_id, ours))

    async def set_state(self, run_id: str, state: TheirState) -> None:
        """Change the state; has no effect after the end."""
        with self._their_errors():
            await write_again(lambda: self._store.set_state(run_id, RunState(state)))

    async def set_result(self, run_id: str, result: TheirResult) -> None:
        """Store the result: after the end once at most, and never for a cancelled run."""
        ours = self._our_result(result)
        with self._their_errors():
            await write_again(lambda: self._store.set_result(run_id, ours))

    async def push_event(self, run_id: str, event: TheirEvent) -> None:
        """Add an event, also after the end."""
        with self._their_errors():
            await write_again(lambda: self._store.push_event(run_id, _our_event(run_id, event)))

    async def stream(self, run_id: str) -> AsyncGenerator[TheirEvent]:
        """Replay what happened, follow live, and end when the run has ended.

        When the store itself failed the run, the last event carries that error.
        """
        events = self._store.stream(run_id)
        with self._their_errors():
            async with aclosing(events):
                async for event in events:
                    if event.type in self._murmur.event_types:
                        yield self._their_event(event)
        try:
            run = await self._store.snapshot(run_id)
        except errors.RunNotFoundError:
            return  # It was deleted.
        if (error := _error_of_the_store(run)) is not None:
            yield self._failed(run, error)

    @contextmanager
    def _their_errors(self) -> Generator[None]:
        try:
            yield
        except (errors.RegistryError, errors.InvalidRunIdError) as error:
            # An id that breaks our rules cannot belong to any run.
            raise self._murmur.errors.RegistryError(str(error)) from error

    def _their_event(self, event: RunEvent) -> TheirEvent:
        return self._murmur.runs.RunEvent(
            type=self._murmur.runs.RunEventType(event.type),
            agent=event.data if event.name == _NAME else event.agent,
            **{name: getattr(event, name) for name in ("run_id", "task_id", "error", "timestamp")},
        )

    def _failed(self, run: Run, error: str) -> TheirEvent:
        return self._murmur.runs.RunEvent(
            type=self._murmur.runs.RunEventType.AGENT_FAILED,
            run_id=run.run_id,
            agent=_name(run),
            error=error,
            timestamp=run.ended_at,
        )

    def _our_result(self, result: TheirResult) -> results.RunResult:
        if not isinstance(result, self._murmur.types.GroupResult):
            return _our_outcome(result)
        return results.GroupResult(
            outputs={name: _our_outcome(outcome) for name, outcome in result.outputs.items()},
            metadata=_our_metadata(result),
        )

    def _their_result(self, result: results.RunResult) -> TheirResult:
        if not isinstance(result, results.GroupResult):
            return self._their_outcome(result)
        return self._murmur.types.GroupResult(
            outputs={name: self._their_outcome(each) for name, each in result.outputs.items()},
            metadata=result.metadata.model_dump(),
        )

    def _their_outcome(self, outcome: results.AgentResult[Any]) -> Any:
        return self._murmur.types.AgentResult(
            output=_model(outcome.output),
            error=self._their_error(outcome.error),
            metadata=outcome.metadata.model_dump(),
            agent_name=outcome.agent_name,
            task_id=outcome.task_id,
        )

    def _their_error(self, error: BaseException | None) -> BaseException | None:
        if not isinstance(error, errors.RemoteAgentError):
            return error
        kind = getattr(self._murmur.errors, error.type_name, None)
        if isinstance(kind, type) and issubclass(kind, self._murmur.errors.MurmurError):
            return cast("type[Exception]", kind)(error.message)
        # As in their own store: clients see the text, so it is the message alone.
        shown = RuntimeError(error.message)
        shown.add_note(f"it was a {error.type_name} in another process")
        return shown


class RedisRunStore(MurmurRunStore):
    """Runs in Redis or Valkey, shared by every server that names the same one and prefix.

    Args:
        url: redis://, rediss://, unix:// or redis+sentinel://; exactly one of it and ``client``.
        client: the caller's own client; this store does not close it.
        owner_lease_seconds: how long after the death of a server another server fails its runs
            with ``owner_lost``; None: they stay running.
        options: further settings of ``murmur_streams.RedisRunStore``, such as ``key_prefix`` (the
            beginning of every key) and ``ttl_seconds`` (how long an ended run is stored; 0 or less
            means for ever).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: AnyClient | None = None,
        owner_lease_seconds: float | None = OWNER_LEASE_SECONDS,
        **options: Any,
    ) -> None:
        _murmur()  # Before anything is opened.
        store = OurRedisRunStore(
            url, client=client, owner_lease_seconds=owner_lease_seconds, **options
        )
        super().__init__(store)
        self._client = store.client

    @property
    def client(self) -> AnyClient:
        """The client that was given, or made for the URL."""
        return self._client


class InMemoryRunStore(MurmurRunStore):
    """Runs in this process's memory; unlike their own, it loses no event.

    Args:
        options: settings of ``murmur_streams.InMemoryRunStore``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(OurInMemoryRunStore(**options))

    new_run_id = staticmethod(new_run_id)


def wrap(store: RunStore) -> MurmurRunStore:
    """Give any store of ours the interface and the types of ``murmur.runs``."""
    return MurmurRunStore(store)


@dataclass(frozen=True, slots=True)
class _Murmur:
    """The modules of ``murmur`` that this module uses."""

    runs: Any
    types: Any
    errors: Any
    event_types: frozenset[str]


@functools.cache
def _murmur() -> _Murmur:
    try:
        runs, types, errors = map(import_module, _MODULES)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "murmur":
            raise ImportError(_HINT, name=error.name) from error
        raise
    return _Murmur(runs, types, errors, frozenset(map(str, runs.RunEventType)))


async def write_again(call: Callable[[], Awaitable[None]]) -> None:
    """Write, also to a run of which the server has lost writes: an AgentServer cannot decide.

    The store has logged the loss, and raises this once for each run and loss.
    """
    try:
        await call()
    except errors.StoreRewoundError:
        await call()


def _target(name: str) -> str:
    """The target for an agent's name, which may be any text in ``murmur``."""
    try:
        return check_target(name)
    except errors.InvalidTargetError:
        readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "agent"
        mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{readable[:_SHOWN_CHARACTERS]}-{mark}"


def _name(run: Run) -> str:
    """The name of the run's agent or group."""
    metadata = run.metadata
    name = metadata.get(_NAME) if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else run.target


def _error_of_the_store(run: Run) -> str | None:
    """The error with which the store itself failed a run (``owner_lost``, say); else None."""
    return run.error if run.state is RunState.FAILED and run.closing is None else None


def _our_event(run_id: str, event: TheirEvent) -> RunEvent:
    agent, error = cast("str | None", event.agent), cast("str | None", event.error)
    checked = _target(agent) if agent else agent
    renamed = checked != agent
    timestamp = event.timestamp
    return RunEvent(
        type=RunEventType(event.type),
        run_id=run_id,
        agent=checked,
        task_id=event.task_id,
        # Shortened: an exception's text may be of any length, and the event must be accepted.
        error=error and error_text(error),
        # A naive time is local time, as everywhere in Python.
        timestamp=timestamp if timestamp.utcoffset() is not None else timestamp.astimezone(),
        name=_NAME if renamed else None,
        data=agent if renamed else None,
    )


def _our_outcome(outcome: Any) -> results.AgentResult[Any]:
    same = {name: getattr(outcome, name) for name in ("output", "error", "agent_name", "task_id")}
    return results.AgentResult[Any](metadata=_our_metadata(outcome), **same)


def _our_metadata(result: TheirResult) -> results.ResultMetadata:
    return results.ResultMetadata.model_validate(result.metadata.model_dump())


def _model(output: object) -> BaseModel | None:
    """An output as a model, which their results need, also when our program stored none."""
    if output is None or isinstance(output, BaseModel):
        return output
    kind = results.StoredModel if isinstance(output, dict) else RootModel[Any]
    return kind.model_validate(output)
