"""StoreWrites: the writes of every store, checked and turned into commands of the core."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar, Unpack

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model import commands
from murmur_streams.core.model.commands import Command
from murmur_streams.core.model.entries import event_fields
from murmur_streams.core.model.errors import InvalidInputError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.identifiers import check_run_id, new_run_id
from murmur_streams.core.model.limits import (
    Limits,
    check_end,
    check_event_count,
    check_expected_version,
    check_progress,
    check_state,
    error_text,
)
from murmur_streams.core.model.result_codec import decode_result, encode_result
from murmur_streams.core.model.results import RunResult
from murmur_streams.core.model.run import PayloadKind, read_payload
from murmur_streams.core.model.states import RunProgress, RunState
from murmur_streams.core.rules import requests
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.work_store import WorkStore

T = TypeVar("T")


class StoreWrites(WorkStore, ABC):
    """Turns the interface's writes into commands; a store only executes them."""

    _limits: Limits

    @abstractmethod
    async def _execute(
        self, run_id: str, command: Command, result: RunResult | None = None
    ) -> Answer:
        """Execute a command exactly once and return its answer, or raise what it means.

        ``result`` is the value behind the command's result, for stores that can keep it.
        """

    @abstractmethod
    async def _payload(self, run_id: str, kind: PayloadKind) -> str | None:
        """Read a JSON text, None without one; RunNotFoundError when the run does not exist."""

    @staticmethod
    def new_run_id() -> str:
        return new_run_id()

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def warning(self) -> str | None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create(
        self, run_id: str, target: str, **options: Unpack[requests.RunOptions]
    ) -> None:
        await self._execute(
            run_id, requests.create_command(run_id, target, self._limits, **options)
        )

    async def submit(
        self, run_id: str, target: str, **options: Unpack[requests.QueuedRunOptions]
    ) -> None:
        await self._execute(
            run_id, requests.submit_command(run_id, target, self._limits, **options)
        )

    async def get_result(self, run_id: str) -> RunResult | None:
        return await self._decoded(run_id, PayloadKind.RESULT, decode_result)

    async def get_input(self, run_id: str) -> JsonValue:
        return await self._decoded(run_id, PayloadKind.INPUT, decode_json)

    async def last_checkpoint(self, run_id: str) -> JsonValue:
        return await self._decoded(run_id, PayloadKind.CHECKPOINT, decode_json)

    async def update_progress(
        self, run_id: str, progress: RunProgress, *, claim: str | None = None
    ) -> None:
        await self._execute(
            run_id, commands.UpdateProgress(check_progress(progress), check_claim(claim))
        )

    async def set_state(self, run_id: str, state: RunState) -> None:
        await self._execute(run_id, commands.SetState(check_state(state)))

    async def set_result(self, run_id: str, result: RunResult) -> None:
        payload = self._limits.result(encode_result(result))
        await self._execute(run_id, commands.SetResult(payload), result)

    async def push_event(self, run_id: str, event: RunEvent) -> None:
        fields = event_fields(event, run_id, self._limits.max_event_bytes)
        await self._execute(run_id, commands.PushEvent(fields))

    async def append(
        self,
        run_id: str,
        *events: RunEvent,
        expected_version: int | None = None,
        claim: str | None = None,
    ) -> int:
        check_event_count(len(events))
        check_expected_version(expected_version)
        limit = self._limits.max_event_bytes
        fields = tuple(event_fields(event, run_id, limit) for event in events)
        answer = await self._execute(
            run_id, commands.Append(fields, expected_version, check_claim(claim))
        )
        return int(answer[1])

    async def finish(
        self,
        run_id: str,
        state: RunState,
        *,
        result: RunResult | None = None,
        event: RunEvent | None = None,
        error: str | None = None,
        claim: str | None = None,
        dead: str | None = None,
        stopped: str | None = None,
    ) -> bool:
        if dead is not None and state != RunState.FAILED:
            raise InvalidInputError(f"only failed runs go to the dead letters, not {state} ones")
        command = commands.Finish(
            check_end(state),
            None if result is None else self._limits.result(encode_result(result)),
            None if event is None else event_fields(event, run_id, self._limits.max_event_bytes),
            error_text(error),
            check_claim(claim),
            error_text(dead),
            error_text(stopped),
        )
        return (await self._execute(run_id, command, result))[0] == "OK"

    async def request_cancel(self, run_id: str, *, reason: str | None = None) -> RunState:
        command = commands.RequestCancel(error_text(reason), socket.gethostname() or None)
        return RunState((await self._execute(run_id, command))[1])

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        try:
            await self._execute(run_id, commands.Delete(force))
        except RunNotFoundError:
            return False
        return True

    async def release(
        self,
        run_id: str,
        claim: str,
        reason: str,
        *,
        delay_seconds: float = 0.0,
        error: str | None = None,
    ) -> RunState:
        delay_ms = requests.milliseconds("the delay", delay_seconds)
        command = commands.Release(reason, _held(claim), delay_ms, error_text(error))
        return RunState((await self._execute(run_id, command))[1])

    async def deliver_cancel(self, run_id: str, claim: str) -> None:
        await self._execute(run_id, commands.DeliverCancel(_held(claim)))

    async def checkpoint(self, run_id: str, value: JsonValue, claim: str) -> None:
        payload = self._limits.checkpoint(encode_json(value, "the checkpoint"))
        await self._execute(run_id, commands.Checkpoint(payload, _held(claim)))

    async def _decoded(
        self, run_id: str, kind: PayloadKind, decode: Callable[[str], T]
    ) -> T | None:
        stored = await self._payload(check_run_id(run_id), kind)
        return None if stored is None else read_payload(run_id, kind, decode, stored)


def check_claim(claim: str | None) -> str | None:
    """Refuse the empty text, which is not a fencing token."""
    if claim == "":
        raise InvalidInputError("claim is empty, but must be a fencing token or None")
    return claim


def _held(claim: str) -> str:
    if check_claim(claim) is None:
        raise InvalidInputError("claim is None, but must be a fencing token")
    return claim
