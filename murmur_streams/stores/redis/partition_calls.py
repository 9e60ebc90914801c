"""The calls of one store to one partition that are in flight: sent, answered, and sent again.

A call has a number, dense in its partition; ``lua/commit.lua`` executes it only right after its
predecessor, and records its answers. So calls need no order on the network: when one fails, it and
its successor are sent again, one after the other and each with its number, until their answers are
known.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from murmur_streams.core.model.errors import MurmurError, StoreClosedError
from murmur_streams.stores.own_tasks import start_task
from murmur_streams.stores.redis.connection import failures
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.failures import Fate, ScriptError, UnconfirmedError
from murmur_streams.stores.redis.connection.lane import CommandSender
from murmur_streams.stores.redis.durations import Clock, Durations
from murmur_streams.stores.redis.numbered_calls import NumberedCalls
from murmur_streams.stores.redis.rewinds import LostRuns, Rewinds
from murmur_streams.stores.redis.script_rights import COMMIT, FREEING_COMMANDS
from murmur_streams.stores.redis.scripts import FREEING_COMMIT, HOT_COMMANDS, HOT_COMMIT
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.writes import (
    OLDER,
    NotExecutedError,
    NumberedCall,
    WaitingRuns,
    WaitingWrite,
    WriteBudget,
    read_reply,
    unknown_outcome,
)

logger = logging.getLogger("murmur_streams.redis")

WAITING_WRITES = 10_000
WAITING_BYTES = 64 * 1024 * 1024
"""Callers beyond these limits wait: a slow server must not fill the memory of the program."""


class PartitionCalls(ABC):
    """What ``PartitionWriter`` has sent.

    Args:
        server: the server.
        partition: which.
        is_older: whether it writes to runs of an older number of partitions.
        lane: the connection that its calls share.
        durations: the store's settings.
        clock: of the store.
        rewinds: the losses that the store has found.
        when_idle: called when nothing waits or is in flight any more.
        take_back: takes writes that were not executed, because their runs belong elsewhere.
        move: the same of those that found no run of the older number.
    """

    def __init__(
        self,
        server: Server,
        partition: int,
        is_older: bool,
        lane: CommandSender,
        durations: Durations,
        clock: Clock,
        rewinds: Rewinds,
        when_idle: Callable[[], None],
        take_back: Callable[[Sequence[WaitingWrite]], None],
        move: Callable[[Sequence[WaitingWrite]], None],
    ) -> None:
        self.budget = WriteBudget(WAITING_WRITES, WAITING_BYTES)
        self._server = server
        self._partition = partition
        # Not those that the store has when a call is repeated: a call that was formed before a
        # raise must not pass as one that was formed after it.
        self._is_older, self._recorded = is_older, OLDER if is_older else str(server.keys.counts)
        self._script_keys = server.keys.commit_keys(partition)
        self._lane = lane
        self._durations = durations
        self._clock = clock
        self._when_idle = when_idle
        self._take_back = take_back
        self._move = move
        self._waiting = WaitingRuns()
        self._calls = NumberedCalls()
        self._in_flight = self._calls.in_flight
        self._lost_runs = LostRuns(rewinds)
        self._is_scheduled = False
        self._recovering: asyncio.Task[None] | None = None
        self._is_abandoned = False
        self._ended: asyncio.Event | None = None

    @property
    def is_retired(self) -> bool:
        """Whether it takes no writes any more."""
        return self._ended is not None

    @property
    def is_idle(self) -> bool:
        """Nothing waits, and nothing is in flight."""
        return not self._waiting and not self._in_flight

    @abstractmethod
    def _schedule(self) -> None:
        """Send what waits at the end of this turn of the event loop."""

    @abstractmethod
    def _send_next(self) -> None:
        """Send what waits, as far as it may be sent now."""

    def _send_first(self) -> None:
        """Send what has waited longest."""
        self._send(self._calls.form(self._waiting, asyncio.get_running_loop().time()))

    def _send(self, call: NumberedCall) -> None:
        # Each try has a time of its own. With the time of the first try, a repeat on another
        # primary could give its entries the ids of entries that a failover has taken away, and a
        # reader of those would go on as if it had seen these.
        call.now_ms = self._clock()
        on_reply = functools.partial(self._on_reply, call)
        call.reply = self._lane.call(*self._command(call), notify=on_reply)

    def _command(self, call: NumberedCall) -> tuple[object, ...]:
        names, loader = call.names, self._server.loader(self._partition)
        if not call.mode and names <= FREEING_COMMANDS:
            call.mode = "freeing"
        script = FREEING_COMMIT if call.mode else COMMIT
        if not loader.uses_functions and names <= HOT_COMMANDS:
            script = HOT_COMMIT
        arguments = self._calls.arguments(call, self._durations, self._recorded)
        return loader.command(script, self._script_keys, arguments)

    def _on_reply(self, call: NumberedCall) -> None:
        assert call.reply is not None  # noqa: S101  # set when the call was sent
        error = call.reply.exception()
        is_first = bool(self._in_flight) and call is self._in_flight[0]
        if self._recovering is not None or not is_first:
            return  # The recovery reads it, or that of its predecessor begins one.
        if error is None:
            error = self._settle(call, call.reply.result())
        if error is None:
            # Later: the tasks that have got their answers write again in the next turn.
            self._schedule()
        elif self._is_abandoned:
            self._give_up()
        else:
            self._recovering = start_task(self._recover(), "repeat writes")

    def _settle(self, call: NumberedCall, reply: Reply) -> BaseException | None:
        """Give each write its answer; returns why the call must be sent again."""
        try:
            answers = read_reply(call, reply)
        except (UnconfirmedError, NotExecutedError) as not_executed:
            return not_executed
        except (TypeError, ValueError, AttributeError) as bug:  # not the form of a script's reply
            self._fail(call, bug)
            return None
        self._calls.settle(call)
        writes = call.writes
        # Also of cancelled callers: their bytes stayed in the budget until the answer came.
        self.budget.release(sum([write.size for write in writes]), len(writes))
        moved = list[WaitingWrite]()
        for write, answer in zip(writes, answers, strict=True):
            if isinstance(answer, ScriptError):
                write.finish(failures.clear_error(answer, self._server.where))
            elif self._is_older and answer[0] == "ELSEWHERE":
                moved.append(write)
            else:
                write.finish(answer)
        if moved:
            self._move(moved)
        return None

    def _refuse(self, writes: Sequence[WaitingWrite], error: BaseException) -> None:
        for write in writes:
            self.budget.release(write.size)
            write.finish(error)

    async def _recover(self) -> None:
        """Send what is in flight again, in its order, until each answer is known."""
        try:
            while self._in_flight:
                await self._until_known(self._in_flight[0])
        except asyncio.CancelledError:
            self._give_up()
            raise
        except Exception as bug:  # noqa: BLE001  # no caller may wait for ever
            for call in tuple(self._in_flight):
                self._fail(call, bug)
        finally:
            self._recovering = None
        self._send_next()

    def _give_up(self) -> None:
        """Fail what is in flight: the store is closed."""
        for call in tuple(self._in_flight):
            reply, error = call.reply, None
            if reply is None or not reply.done():
                call.maybe_applied |= reply is not None
            elif (error := reply.exception()) is not None:
                self._note(call, error)
            closed = StoreClosedError("the store was closed before the write")
            reason = failures.reason_of(error) if error is not None else closed
            self._fail(call, self._lost(call, reason) if call.maybe_applied else closed)

    def _note(self, call: NumberedCall, error: BaseException) -> Fate:
        """Judge a failed try, and note whether it may have been applied."""
        reason = failures.reason_of(error)
        fate = failures.fate_of(reason)
        # A call that was not sent was not applied, whatever prevented it.
        call.maybe_applied |= fate is Fate.UNKNOWN and reason is error
        return fate

    async def _until_known(self, call: NumberedCall) -> None:
        """Send a call again, with the same number, until its answer is known or time is over.

        A lost reply leaves two cases: the call was applied, or it was not. The script knows: for a
        number that it has seen it returns the recorded answers, for a new one it applies the call.
        Without the number the repeat would append the events a second time. Once a try may have
        been applied, a refusal of a later try says nothing about the first one: the call is tried
        on until time is over, and its outcome is then reported as unknown and not as refused.
        """
        loop = asyncio.get_running_loop()
        give_up, attempt = call.since + self._server.retry_seconds, -1
        while True:
            error = await self._error_of(call)
            if error is None:
                return
            reason, mode = failures.reason_of(error), call.mode
            if self._is_decided(call, error, reason, over=loop.time() >= give_up):
                return
            logger.debug("a write failed, trying again with its number: %r", reason)
            try:
                if not isinstance(error, NotExecutedError) and call.mode == mode:
                    # A primary that waited for its replicas is there: no longer pause is needed.
                    has_waited = isinstance(error, failures.TooFewReplicasError)
                    attempt = 0 if has_waited else attempt + 1
                    await self._prepare_retry(error, attempt)
            except Exception as again:  # noqa: BLE001  # judged at the top of the loop
                call.reply = loop.create_future()
                call.reply.set_exception(again)
            else:
                if self.is_retired and isinstance(error, UnconfirmedError):
                    self._hand_back()
                    return
                self._send(call)

    def _hand_back(self) -> None:
        """Give back what is in flight: the first call would create runs by an old number.

        It was not executed, and so was none behind it.
        """
        calls = tuple(self._in_flight)
        writes = [write for call in calls for write in call.writes]
        for call in calls:
            self._calls.drop(call)
        for write in writes:
            self.budget.release(write.size)
        self._take_back(writes)

    async def _error_of(self, call: NumberedCall) -> BaseException | None:
        """Wait for the reply to the last try; None when it settled the call."""
        assert call.reply is not None  # noqa: S101  # set when the call was sent
        await asyncio.wait([call.reply])
        return call.reply.exception() or self._settle(call, call.reply.result())

    def _is_decided(
        self, call: NumberedCall, error: BaseException, reason: BaseException, *, over: bool
    ) -> bool:
        """Judge a failed try: True when the call is given up, else it is ready for the next one."""
        if isinstance(error, NotExecutedError):
            self._start_anew(call, error)
            return not call.groups
        fate = self._note(call, error)
        if failures.code_of(reason) == "OOM" and not call.mode:
            return self._shrink(call, reason)
        if fate is Fate.BUG or (fate is Fate.REFUSED and not call.maybe_applied):
            self._fail(call, failures.clear_error(reason, self._server.where))
            return True
        # A refused password stays refused: a later try cannot learn the answer.
        if over or failures.is_shut(reason):
            self._fail(call, self._lost(call, reason))
            return True
        return False

    def _start_anew(self, call: NumberedCall, error: NotExecutedError) -> None:
        """Prepare a call that the script found not to be executed for its next try."""
        call.maybe_applied = False
        if error.answer == "UNKNOWN":
            call.mode = ""
        # The answer to a try of an earlier producer comes after the loss was taken in.
        if error.answer == "REWOUND" and call.producer == self._calls.producer:
            for write in self._lost_runs.rewind(error.last, self._calls, self._waiting):
                self._refuse([write], self._lost_runs.error(write))

    def _shrink(self, call: NumberedCall, reason: BaseException) -> bool:
        """After a refusal for lack of memory: keep the commands that free some.

        If an earlier try may have been applied, the record is asked first.
        """
        if call.maybe_applied:
            call.mode = "recorded"
            return False
        self._refuse(call.keep_freeing(), failures.clear_error(reason, self._server.where))
        if call.groups:
            call.mode = "freeing"
            return False
        self._calls.drop(call)
        return True

    async def _prepare_retry(self, error: BaseException, attempt: int) -> None:
        emptied = failures.is_not_loaded(error) or isinstance(error, UnconfirmedError)
        if attempt > 0 or not emptied:
            await self._server.recover(attempt)
        if emptied:
            await self._server.mend(self._script_keys[0], error)

    def _fail(self, call: NumberedCall, error: BaseException) -> None:
        self._calls.drop(call)
        self._refuse(call.writes, error)
        self._send_next()

    def _lost(self, call: NumberedCall, reason: BaseException) -> MurmurError:
        if not call.maybe_applied:
            return self._server.unavailable(reason)
        return unknown_outcome(call, self._server.where, reason)
