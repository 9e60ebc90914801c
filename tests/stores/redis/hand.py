"""Calls sent by hand: under any producer and number, once, with no retry."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

from murmur_streams.core.rules.decide import Answer
from murmur_streams.stores.redis.calls import Calls
from murmur_streams.stores.redis.connection.connections import Reply
from murmur_streams.stores.redis.connection.failures import UnconfirmedError
from murmur_streams.stores.redis.durations import Clock, Durations
from murmur_streams.stores.redis.script_rights import COMMIT
from murmur_streams.stores.redis.store import RedisRunStore
from murmur_streams.stores.redis.writer import Writer
from murmur_streams.stores.redis.writes import (
    Arguments,
    NumberedCall,
    WaitingRuns,
    WaitingWrite,
    answers_to,
)


class HandWriter:
    """Sends a call once, under the producer and number that the test chose.

    Writes of one turn of the loop leave in one call, as from the writer.
    """

    def __init__(self, store: RedisRunStore, durations: Durations, clock: Clock) -> None:
        self._store = store
        self._durations = durations
        self._clock = clock
        self.producer, self.n = "", 0
        self.settled: int | None = None
        """The call's ``settled``; None: all calls before it are."""
        self.known = 0
        self.reply: list[str] = []
        """The last call's reply as it came."""
        self._waiting = WaitingRuns()
        self._sending: asyncio.Task[None] | None = None

    async def write(
        self,
        command: str,
        run_id: str,
        arguments: Arguments,
        events: int = 0,
        *,
        size: int | None = None,
    ) -> Answer:
        del events, size
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.add(WaitingWrite(command, run_id, arguments, 0, 0, 0.0, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        await self._sending
        return await answer

    def arguments(self, call: NumberedCall) -> list[str | int]:
        """The ARGV of a call."""
        settled = call.n - 1 if self.settled is None else self.settled
        recorded = str(self._store._keys.counts)
        return call.arguments(self.producer, settled, self.known, self._durations, recorded)

    async def _send(self) -> None:
        call = NumberedCall(self.n, self._waiting.take(), self._clock(), 0)
        self._sending = None
        reply = await self._reply_to(call, call.writes[0].run_id)
        self.reply = [text.decode() for text in reply]
        answers = [(self.reply[0],)] * len(call.writes)
        if self.reply[0] == "OK":
            # A repeated number gets the answers of the first call with it. They need not be as many
            # as its writes.
            with contextlib.suppress(ValueError):
                answers = answers_to(call, reply[1:])
        for write, answer in zip(call.writes, answers, strict=True):
            write.finish(answer)

    async def _reply_to(self, call: NumberedCall, run_id: str) -> list[bytes]:
        server = self._store._server
        partition = server.keys.partition(run_id)
        keys = server.keys.commit_keys(partition)
        while True:
            command = server.loader(partition).command(COMMIT, keys, self.arguments(call))
            reply: Reply = await server.nodes.of_key(keys[0]).commands.call(*command)
            if reply[0] != b"UNCONFIRMED":
                return reply
            await server.mend(keys[0], UnconfirmedError())


def expect_many(writer: Writer, partition: int = 0) -> None:
    """Let the next writes of one turn of the loop leave in one call, at its end."""
    calls = writer._routes.at(partition)._calls
    calls._last_weights = (10**9, 10**9)
    calls._note_change()


def calls_by_hand(writer: HandWriter, durations: Durations) -> Calls:
    """The typed calls of a store, sent by this writer."""
    return Calls(cast("Writer", writer), durations)
