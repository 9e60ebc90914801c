"""Our stores for the ``AgentServer`` of ``murmur-runtime`` 0.1.0, in that package's types.

::

    server = AgentServer(run_store=RedisRunStore("redis://localhost:6379/0"))

``murmur`` is imported when a store is made, not before. Its types stand as Any here: the package
pins a pydantic of its own, so it is not in the environment that this one is checked in.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

from pydantic import BaseModel, RootModel
from redis.asyncio import Redis

from murmur_streams.core.model.errors import (
    InvalidRunIdError,
    InvalidTargetError,
    RegistryError,
    RemoteAgentError,
    RunNotFoundError,
)
from murmur_streams.core.model.events import RunEvent, RunEventType
from murmur_streams.core.model.identifiers import check_target, new_run_id
from murmur_streams.core.model.limits import error_text
from murmur_streams.core.model.result_codec import StoredModel
from murmur_streams.core.model.results import AgentResult, GroupResult, ResultMetadata, RunResult
from murmur_streams.core.model.run import Run
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.stores.local.memory.store import InMemoryRunStore as OurInMemoryRunStore
from murmur_streams.stores.protocol import RunStore
from murmur_streams.stores.redis.store import RedisRunStore as OurRedisRunStore

OWNER_LEASE_SECONDS = 30.0
"""For how long nobody has to hear of a server before its runs fail."""

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
"""Where an agent's name is kept that is no target: a key of the metadata, an event's ``name``."""
_SHOWN_CHARACTERS = 100


class MurmurRunStore:
    """A store of ours behind the interface and the types of ``murmur.runs``.

    Unknown and duplicate ids raise their RegistryError; what else a store raises is our own. Of
    the events only those of their five types are streamed.

    Args:
        store: any store of ours; closing this closes it.

    Raises:
        ImportError: ``murmur-runtime`` is not installed.
    """

    def __init__(self, store: RunStore) -> None:
        self._murmur = _murmur()
        self._store = store

    @property
    def store(self) -> RunStore:
        """The store behind it, for what their interface lacks: listings, deletion, the journal."""
        return self._store

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the store behind it; a second call does nothing."""
        await self._store.close()

    async def create(self, run_id: str, target: str) -> None:
        """Begin a run that waits."""
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

        A run that the store itself failed, its server being gone, has a result that says so.
        """
        with self._their_errors():
            result = await self._store.get_result(run_id)
            run = None if result is not None else await self._store.snapshot(run_id)
        if result is not None:
            return self._their_result(result)
        if run is None or (error := _told_by_the_store(run)) is None:
            return None
        lost = self._murmur.errors.SpawnError(error)
        return self._murmur.types.AgentResult(error=lost, agent_name=_name(run), task_id="")

    async def update_progress(self, run_id: str, progress: TheirProgress) -> None:
        """Replace the counters; nothing happens after the end."""
        with self._their_errors():
            await self._store.update_progress(
                run_id, RunProgress.model_validate(progress.model_dump())
            )

    async def set_state(self, run_id: str, state: TheirState) -> None:
        """Change the state; nothing happens after the end."""
        with self._their_errors():
            await self._store.set_state(run_id, RunState(state))

    async def set_result(self, run_id: str, result: TheirResult) -> None:
        """Store the result; after the end only once, and never for a cancelled run."""
        ours = self._our_result(result)
        with self._their_errors():
            await self._store.set_result(run_id, ours)

    async def push_event(self, run_id: str, event: TheirEvent) -> None:
        """Add an event, also after the end."""
        with self._their_errors():
            await self._store.push_event(run_id, _our_event(run_id, event))

    async def stream(self, run_id: str) -> AsyncGenerator[TheirEvent]:
        """Replay what happened, follow live, and end when the run has ended.

        The last event of a run that the store itself failed says so.
        """
        with self._their_errors():
            async with aclosing(
                cast("AsyncGenerator[RunEvent]", self._store.stream(run_id))
            ) as all_:
                async for event in all_:
                    if event.type in self._murmur.event_types:
                        yield self._their_event(event)
        try:
            run = await self._store.snapshot(run_id)
        except RunNotFoundError:
            return  # It was deleted.
        if (error := _told_by_the_store(run)) is not None:
            yield self._failed(run, error)

    @contextmanager
    def _their_errors(self) -> Generator[None]:
        try:
            yield
        except (RegistryError, InvalidRunIdError) as error:
            # What is outside our grammar is no run's id, and can become none.
            raise self._murmur.errors.RegistryError(str(error)) from error

    def _their_event(self, event: RunEvent) -> TheirEvent:
        agent = cast("str", event.data) if event.name == _NAME else event.agent
        return self._murmur.runs.RunEvent(
            type=self._murmur.runs.RunEventType(event.type),
            run_id=event.run_id,
            agent=agent,
            task_id=event.task_id,
            error=event.error,
            timestamp=event.timestamp,
        )

    def _failed(self, run: Run, error: str) -> TheirEvent:
        return self._murmur.runs.RunEvent(
            type=self._murmur.runs.RunEventType.AGENT_FAILED,
            run_id=run.run_id,
            agent=_name(run),
            error=error,
            timestamp=run.ended_at,
        )

    def _our_result(self, result: TheirResult) -> RunResult:
        if not isinstance(result, self._murmur.types.GroupResult):
            return _our_outcome(result)
        return GroupResult(
            outputs={name: _our_outcome(outcome) for name, outcome in result.outputs.items()},
            metadata=_our_metadata(result),
        )

    def _their_result(self, result: RunResult) -> TheirResult:
        if not isinstance(result, GroupResult):
            return self._their_outcome(result)
        return self._murmur.types.GroupResult(
            outputs={name: self._their_outcome(each) for name, each in result.outputs.items()},
            metadata=result.metadata.model_dump(),
        )

    def _their_outcome(self, outcome: AgentResult[Any]) -> Any:
        return self._murmur.types.AgentResult(
            output=_model(outcome.output),
            error=self._their_error(outcome.error),
            metadata=outcome.metadata.model_dump(),
            agent_name=outcome.agent_name,
            task_id=outcome.task_id,
        )

    def _their_error(self, error: BaseException | None) -> BaseException | None:
        if not isinstance(error, RemoteAgentError):
            return error
        kind = getattr(self._murmur.errors, error.type_name, None)
        if isinstance(kind, type) and issubclass(kind, self._murmur.errors.MurmurError):
            return cast("type[Exception]", kind)(error.message)
        # As their own store has it: its text is the message alone, which clients are shown.
        told = RuntimeError(error.message)
        told.add_note(f"it was a {error.type_name} in another process")
        return told


class RedisRunStore(MurmurRunStore):
    """Runs in Redis or Valkey, shared by every server that names the same one and prefix.

    Args:
        url: redis://, rediss:// or unix://; exactly one of ``url`` and ``client``.
        client: a client of the caller's, which stays the caller's to close.
        key_prefix: what every key begins with.
        ttl_seconds: how long an ended run is kept; 0 or less means for ever.
        owner_lease_seconds: how long after a server has died its runs fail with ``owner_lost``,
            seen to by any other; None: they stay running.
        options: further settings of ``murmur_streams.RedisRunStore``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Redis | None = None,
        key_prefix: str = "murmur:runs",
        ttl_seconds: float = 3600,
        owner_lease_seconds: float | None = OWNER_LEASE_SECONDS,
        **options: Any,
    ) -> None:
        _murmur()  # Before anything is opened.
        store = OurRedisRunStore(
            url,
            client=client,
            key_prefix=key_prefix,
            ttl_seconds=ttl_seconds,
            owner_lease_seconds=owner_lease_seconds,
            **options,
        )
        super().__init__(store)
        self._client = store.client

    @property
    def client(self) -> Redis:
        """The client that was given, or made for the URL."""
        return self._client


class InMemoryRunStore(MurmurRunStore):
    """Runs in this process's memory, with the last event and the whole replay.

    Args:
        options: settings of ``murmur_streams.InMemoryRunStore``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(OurInMemoryRunStore(**options))

    @staticmethod
    def new_run_id() -> str:
        """Draw a run id."""
        return new_run_id()


def wrap(store: RunStore) -> MurmurRunStore:
    """Give any store of ours the interface and the types of ``murmur.runs``."""
    return MurmurRunStore(store)


@dataclass(frozen=True, slots=True)
class _Murmur:
    """The modules of ``murmur`` that are needed here."""

    runs: Any
    types: Any
    errors: Any
    event_types: frozenset[str]


@functools.cache
def _murmur() -> _Murmur:
    try:
        runs, types, errors = map(
            import_module, ("murmur.runs", "murmur.types", "murmur.core.errors")
        )
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "murmur":
            raise ImportError(_HINT, name=error.name) from error
        raise
    return _Murmur(runs, types, errors, frozenset(map(str, runs.RunEventType)))


def _target(name: str) -> str:
    """The target for an agent's name, which there may be any text."""
    try:
        return check_target(name)
    except InvalidTargetError:
        kept = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "agent"
        mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{kept[:_SHOWN_CHARACTERS]}-{mark}"


def _name(run: Run) -> str:
    """The name of the agent or group that a run is on."""
    metadata = run.metadata
    told = metadata.get(_NAME) if isinstance(metadata, Mapping) else None
    return told if isinstance(told, str) else run.target


def _told_by_the_store(run: Run) -> str | None:
    """Why the store itself failed a run (its owner is lost, say); None when it did not."""
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
        # The text of an exception may be of any length, and the last event must not fail by it.
        error=error and error_text(error),
        # A naive one is of this machine, as everywhere in Python.
        timestamp=timestamp if timestamp.utcoffset() is not None else timestamp.astimezone(),
        name=_NAME if renamed else None,
        data=agent if renamed else None,
    )


def _our_outcome(outcome: Any) -> AgentResult[Any]:
    return AgentResult[Any](
        output=outcome.output,
        error=outcome.error,
        metadata=_our_metadata(outcome),
        agent_name=outcome.agent_name,
        task_id=outcome.task_id,
    )


def _our_metadata(result: TheirResult) -> ResultMetadata:
    return ResultMetadata.model_validate(result.metadata.model_dump())


def _model(output: object) -> BaseModel | None:
    """An output as their results hold it: a model, also where a program of ours wrote none."""
    if output is None or isinstance(output, BaseModel):
        return output
    return (
        StoredModel.model_validate(output) if isinstance(output, dict) else RootModel[Any](output)
    )
