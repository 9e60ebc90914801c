"""The writes of work that workers execute, which every store with a queue has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from murmur_streams.core.json_values import decode_json, encode_json
from murmur_streams.core.model.commands import Checkpoint, DeliverCancel, Release
from murmur_streams.core.model.errors import InvalidInputError
from murmur_streams.core.model.identifiers import check_run_id
from murmur_streams.core.model.limits import error_text
from murmur_streams.core.model.run import read_payload
from murmur_streams.core.model.states import RunState
from murmur_streams.core.rules.requests import Order, create_command, milliseconds, submit_command
from murmur_streams.stores.commands import RunWrites, check_claim


class QueuedRuns(RunWrites):
    """Turns what is done with queued runs into commands; a store only executes them."""

    @property
    def warning(self) -> str | None:
        """What to mend though the store works; None when there is nothing."""
        return None

    @abstractmethod
    async def _checkpoint_json(self, run_id: str) -> str | None:
        """Read the run's checkpoint, None without one; RunNotFoundError when there is no run."""

    async def submit(  # noqa: PLR0913  # one for each part of a submission
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
        request_sha256: str | None = None,
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
            request_sha256: the digest of a request with an idempotency key, kept with the run.

        Raises:
            RunExistsError: the id is taken.
            InvalidInputError: something breaks a rule; nothing is written.
        """
        created = create_command(run_id, target, input, metadata, self._limits, tenant=tenant)
        order = Order(priority, delay_seconds, at, deadline_seconds, trace or {}, request_sha256)
        await self._execute(run_id, submit_command(created, order))

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
        stored = await self._checkpoint_json(check_run_id(run_id))
        return None if stored is None else read_payload(run_id, "checkpoint", decode_json, stored)


def held_claim(claim: str) -> str:
    """Refuse what is no fencing token."""
    if check_claim(claim) is None:
        raise InvalidInputError("claim is None, but must be a fencing token")
    return claim
