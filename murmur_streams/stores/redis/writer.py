"""Sends writes so that each is applied exactly once, and many share a round trip.

For each run one call is in flight; appends that arrive meanwhile leave together in the next one.
Calls of many runs share a few connections and do not wait for each other. Each call carries the
store's producer id and a number, and is sent again with the same number until its answer is known
or time is over.

Why one call a run: a lost reply leaves the first of two calls in doubt. If the second were already
on its way, the retry of the first would arrive after it, and the script, which remembers only the
last number of a producer, would drop it as outdated: the write would be lost although its caller
still waits, or its events would be behind later ones. With one call at a time the retry has always
the last number, and gets the recorded answer if the first try was applied.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import zlib

from redis.exceptions import NoScriptError

from murmur_streams.core.model.errors import MurmurError, OutcomeUnknownError, StoreClosedError
from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.own_tasks import start_task
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.failures import Fate, UnconfirmedError
from murmur_streams.stores.redis.connection.lane import Lane
from murmur_streams.stores.redis.scripts import load_scripts
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.writes import (
    MERGED_SCRIPTS,
    Arguments,
    NumberedCall,
    RunWriteQueue,
    WaitingWrite,
    WriteBudget,
    answers_to,
    size_of,
    take_writes,
)

logger = logging.getLogger("murmur_streams.redis")

LANES = 2
WAITING_WRITES = 10_000
WAITING_BYTES = 64 * 1024 * 1024
"""Callers beyond these limits wait: a slow server must not fill the memory of the program."""


class Writer:
    """Sends the numbered writes of one store.

    Guarantee: a write that returns was applied exactly once, and writes of one store to one run are
    applied in the order in which they were made. A write that raises OutcomeUnknownError was
    applied at most once, and never after a later write of the same store. The write of a cancelled
    caller is still sent.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._producer, self._pid = _new_producer(), os.getpid()
        self._n = 0
        self._queues: dict[str, RunWriteQueue] = {}
        self._lanes = [
            Lane(server.new_connection, deadline_seconds=server.call_seconds) for _ in range(LANES)
        ]
        self._budget = WriteBudget(WAITING_WRITES, WAITING_BYTES)
        self._retries: set[asyncio.Task[None]] = set()
        self._preparing: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        """Set when the store is closed and its last write is answered."""
        self._closed = False
        self._abandoned = False

    async def write(
        self,
        name: str,
        run_id: str,
        keys: list[str],
        now_ms: int,
        shared: Arguments,
        own: Arguments,
    ) -> Answer:
        """Execute a script for a run, exactly once.

        Args:
            name: the script.
            run_id: the run that it changes.
            keys: its KEYS.
            now_ms: the caller's clock, Unix milliseconds.
            shared: the ARGV from 5 on that every write has.
            own: the script's own ARGV.

        A bug is raised as it is, at once; whether the write was applied is then unknown.

        Raises:
            InvalidInputError: a text cannot be encoded; nothing was written.
            StoreUnavailableError: the server was never reached; nothing was written.
            OutcomeUnknownError: the connection broke, and retries ran out or the store was closed.
            StoreError: the server refused the write; nothing was written.
        """
        self._refuse_when_closed()
        size = size_of(own)
        await self._server.ready()
        await self._budget.reserve(size)
        if self._closed:
            self._budget.release(size)
            self._refuse_when_closed()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        write = WaitingWrite(name, keys, now_ms, shared, own, size, answer)
        queue = self._queues.get(run_id)
        if queue is None:
            queue = self._queues[run_id] = RunWriteQueue(run_id)
        queue.waiting.append(write)
        if not queue.busy:
            queue.busy = True
            # At the end of this turn of the event loop: writes of other tasks join the call.
            asyncio.get_running_loop().call_soon(self._send_next, queue)
        return await answer

    async def close(self, seconds: float) -> None:
        """Reject new writes; wait at most ``seconds`` for those under way."""
        self._closed = True
        try:
            async with asyncio.timeout(seconds):
                if self._queues:
                    await self._idle.wait()
        except TimeoutError:
            logger.debug("the store is closed with writes under way; their outcome is unknown")
        self._abandoned = True
        for task in tuple(self._retries):
            task.cancel()
        for lane in self._lanes:
            await lane.close()
        await asyncio.gather(*self._retries, return_exceptions=True)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed; open a new one")

    def _send_next(self, queue: RunWriteQueue) -> None:
        if self._abandoned:
            for write in queue.waiting:
                self._finish(write, StoreClosedError("the store was closed before the write"))
            queue.waiting.clear()
        if not queue.waiting:
            queue.busy = False
            self._queues.pop(queue.run_id, None)
            if self._closed and not self._queues:
                self._idle.set()
            return
        writes = take_writes(queue.waiting)
        self._send(NumberedCall(queue, writes, self._command(queue.run_id, writes)))

    def _send(self, call: NumberedCall) -> None:
        reply = self._lane(call.queue.run_id).call(*call.command)
        reply.add_done_callback(functools.partial(self._on_reply, call))

    def _lane(self, run_id: str) -> Lane:
        return self._lanes[zlib.crc32(run_id.encode()) % LANES]

    def _command(self, run_id: str, writes: list[WaitingWrite]) -> tuple[object, ...]:
        first = writes[0]
        own: list[str | int] = [len(writes)] if first.script in MERGED_SCRIPTS else []
        for write in writes:
            own.extend(write.own)
        script = load_scripts()[first.script]
        numbered = (run_id, *self._number(), max([write.now_ms for write in writes]))
        return ("EVALSHA", script.sha, len(first.keys), *first.keys, *numbered, *first.shared, *own)

    def _number(self) -> tuple[str, int]:
        if os.getpid() != self._pid:
            # A forked child has a copy of this object. With the same producer id both processes
            # would use the same numbers, and a script would answer the child's new write with the
            # recorded answer of the parent's: the child's events would be lost, and reported as
            # written.
            self._producer, self._pid = _new_producer(), os.getpid()
        self._n += 1
        return self._producer, self._n

    def _on_reply(self, call: NumberedCall, reply: asyncio.Future[Reply]) -> None:
        error = reply.exception() or self._settle(call, reply.result())
        if error is None:
            return
        if self._abandoned:
            self._fail(call, self._lost(call, error, maybe_applied=True))
        else:
            task = start_task(
                self._until_known(call, error), f"retry a write of run {call.queue.run_id}"
            )
            self._retries.add(task)
            task.add_done_callback(self._retries.discard)

    def _settle(self, call: NumberedCall, reply: Reply) -> UnconfirmedError | None:
        """Give each write its answer, unless the call must be sent again."""
        try:
            answers = answers_to(call, reply)
        except UnconfirmedError as unconfirmed:
            return unconfirmed
        except Exception as bug:  # noqa: BLE001  # the reply does not have a script's form
            self._fail(call, bug)
            return None
        for write, answer in zip(call.writes, answers, strict=True):
            self._finish(write, answer)
        self._send_next(call.queue)
        return None

    def _finish(self, write: WaitingWrite, answer: Answer | BaseException) -> None:
        # Also when its caller was cancelled: its bytes stayed in the budget until the answer came.
        self._budget.release(write.size)
        if write.answer.done():
            return
        if isinstance(answer, BaseException):
            write.answer.set_exception(answer)
        else:
            write.answer.set_result(answer)

    async def _until_known(self, call: NumberedCall, error: BaseException) -> None:
        """Send a call again, with the same number, until its answer is known or time is over.

        A lost reply leaves two cases: the call was applied, or it was not. The script knows: for a
        number that it has seen it returns the recorded answer, for a new one it applies the write.
        Without the number the repeat would append the events a second time. Once a try may have
        been applied, a refusal of a later try says nothing about the first one: the call is tried
        on until time is over, and its outcome is then reported as unknown and not as refused.
        """
        give_up = asyncio.get_running_loop().time() + self._server.retry_seconds
        attempt, maybe_applied = 0, False
        try:
            while True:
                reason = failures.reason_of(error)
                fate = failures.fate_of(reason)
                # A call that was not sent was not applied, whatever prevented it.
                maybe_applied |= fate is Fate.UNKNOWN and reason is error
                if fate is Fate.BUG or (fate is Fate.REFUSED and not maybe_applied):
                    self._fail(call, failures.clear_error(reason, self._server.where))
                    return
                # A refused password stays refused: a later try cannot learn the answer.
                over = asyncio.get_running_loop().time() >= give_up or failures.is_shut(reason)
                if over:
                    self._fail(call, self._lost(call, reason, maybe_applied=maybe_applied))
                    return
                logger.debug("a write failed, trying again with its number: %r", reason)
                try:
                    await self._prepare_retry(error, attempt)
                    reply = await self._lane(call.queue.run_id).call(*call.command)
                except Exception as again:  # noqa: BLE001  # judged at the top of the loop
                    error = again
                else:
                    unconfirmed = self._settle(call, reply)
                    if unconfirmed is None:
                        return
                    error = unconfirmed
                attempt += 1
        except asyncio.CancelledError:
            self._fail(call, self._lost(call, error, maybe_applied=True))
            raise

    async def _prepare_retry(self, error: BaseException, attempt: int) -> None:
        emptied = isinstance(error, (NoScriptError, UnconfirmedError))
        if attempt > 0 or not emptied:
            await self._server.recover(attempt)
        if emptied:
            await asyncio.shield(self._prepare_once(error))

    def _prepare_once(self, error: NoScriptError | UnconfirmedError) -> asyncio.Task[None]:
        """Prepare the server once for all calls that found it without the scripts or the number."""
        if self._preparing is None or self._preparing.done():
            self._preparing = start_task(self._server.preparation.for_retry(error), "prepare again")
            self._retries.add(self._preparing)
            self._preparing.add_done_callback(self._retries.discard)
        return self._preparing

    def _fail(self, call: NumberedCall, error: BaseException) -> None:
        for write in call.writes:
            self._finish(write, error)
        self._send_next(call.queue)

    def _lost(
        self, call: NumberedCall, reason: BaseException, *, maybe_applied: bool
    ) -> MurmurError:
        if not maybe_applied:
            return self._server.unavailable(reason)
        script, run_id = call.writes[0].script, call.queue.run_id
        said = str(reason) or type(reason).__name__
        return OutcomeUnknownError(
            f"the {script} of run {run_id!r} was sent to {self._server.where}, but no answer came "
            f"back ({said}); it was applied once or not at all: read the run to know"
        )


def _new_producer() -> str:
    return secrets.token_hex(8)
