"""What the Redis store has for work that workers execute: submit, hand back, cancel, checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from murmur_streams.core.answers import check_answer
from murmur_streams.core.commands import Checkpoint, DeliverCancel, Release
from murmur_streams.core.errors import InvalidInputError, RunNotFoundError
from murmur_streams.core.identifiers import check_run_id, check_target
from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.limits import Limits, error_text
from murmur_streams.core.requests import Order, create_command, milliseconds, submit_command
from murmur_streams.core.states import RunState
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.server import Server, text
from murmur_streams.stores.writes import RunWrites, check_claim


class QueuedRuns(RunWrites):
    """The store's methods for queued runs; the rules are the core's and the scripts'."""

    keys: Keys
    server: Server
    calls: Calls
    _limits: Limits

    async def submit(
        self,
        run_id: str,
        target: str,
        *,
        input: JsonValue = None,  # noqa: A002  # the interface's name
        metadata: Mapping[str, JsonValue] | None = None,
        tenant: str | None = None,
        priority: int = 0,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        deadline_seconds: float | None = None,
        trace: Mapping[str, str] | None = None,
    ) -> None:
        """Begin a run and put it into its target's queue, in one step.

        Args:
            run_id: the run.
            target: the name of an agent.
            input: its input, as JSON.
            metadata: what the submitter attaches.
            tenant: whose run it is; None for nobody's.
            priority: from -100 to 100; a step is worth a minute of waiting, so nothing starves.
            delay_seconds: how long from now on nobody may start it, by the server's clock.
            at: when it is due, with a time zone; instead of a delay.
            deadline_seconds: how long after it is due it fails if it has not ended.
            trace: the W3C headers ``traceparent`` and ``tracestate``.

        Raises:
            RunExistsError: the id is taken.
            InvalidInputError: something breaks a rule; nothing is written.
        """
        created = create_command(run_id, target, input, metadata, self._limits, tenant=tenant)
        order = Order(priority, delay_seconds, at, deadline_seconds, trace or {})
        check_answer(await self.calls.execute(run_id, submit_command(created, order)), run_id)

    async def release(
        self,
        run_id: str,
        claim: str,
        reason: str,
        *,
        delay_seconds: float = 0.0,
        error: str | None = None,
    ) -> RunState:
        """Hand a claimed run back: it waits in its queue again, at its old place without a delay.

        Args:
            run_id: the run.
            claim: the fencing token of the worker that holds it.
            reason: why: ``failed`` counts a failure; ``worker_stopped`` and ``retry_later`` do not
                count against the most attempts.
            delay_seconds: how long from now on nobody may start it, by the server's clock.
            error: what the execution failed with; the run keeps the first ones.

        Returns:
            The run's state afterwards: pending, or cancelled when that was requested; another one
            when it was not running.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        delay_ms = milliseconds("the delay", delay_seconds)
        command = Release(reason, held_claim(claim), delay_ms, error_text(error))
        return RunState((await self._execute(run_id, command))[1])

    async def deliver_cancel(self, run_id: str, claim: str) -> None:
        """Note that the execution has learnt that its end was asked for; once is enough.

        Raises:
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        await self._execute(run_id, DeliverCancel(held_claim(claim)))

    async def checkpoint(self, run_id: str, value: JsonValue, claim: str) -> None:
        """Keep a value for the run's next execution, instead of the one before.

        Args:
            run_id: the run.
            value: any JSON, up to ``max_result_bytes``.
            claim: the fencing token of the worker that holds it.

        Raises:
            PayloadTooLargeError: it is too large; nothing was written.
            LeaseLostError: ``claim`` does not hold the run; nothing was written.
        """
        payload = self._limits.checkpoint(encode_json(value, "the checkpoint"))
        await self._execute(run_id, Checkpoint(payload, held_claim(claim)))

    async def last_checkpoint(self, run_id: str) -> JsonValue:
        """Read the value that an execution kept last; None when none did."""
        key = self.keys.checkpoint(check_run_id(run_id))
        stored = await self._read_payload(run_id, key)
        return None if stored is None else decode_json(stored)

    async def pause(self, target: str) -> None:
        """Let no worker start a run of this target from now on; those that run go on."""
        await self._in_every_partition("pause", check_target(target))

    async def resume(self, target: str) -> None:
        """Let workers start runs of this target again, and wake some."""
        await self._in_every_partition("resume", check_target(target))

    async def paused(self) -> set[str]:
        """The targets that are paused, in any partition: a pause that was cut short counts."""
        rows = [self.keys.paused(partition) for partition in self.keys.all_partitions]
        replies = await self.server.read_all(*(("SMEMBERS", row) for row in rows))
        return {text(target) for reply in replies for target in reply}

    async def _in_every_partition(self, script: str, target: str) -> None:
        calls = [
            self.server.idempotent_script(script, [self.keys.base(partition)], [target])
            for partition in self.keys.all_partitions
        ]
        await asyncio.gather(*calls)

    async def _read_payload(self, run_id: str, key: str) -> str | None:
        stored, exists = await self.server.read_all(("GET", key), ("EXISTS", self.keys.run(run_id)))
        if not exists:
            raise RunNotFoundError(run_id)
        return None if stored is None else text(stored)


def held_claim(claim: str) -> str:
    """Refuse what is no fencing token."""
    if check_claim(claim) is None:
        raise InvalidInputError("claim is None, but must be a fencing token")
    return claim
