"""The calls of one store to one partition that are in flight, and the numbers that they carry."""

from __future__ import annotations

import math
import secrets
from collections import deque

from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.writes import NumberedCall, WaitingRuns

CALLS_IN_FLIGHT = 2
PRODUCER_SECONDS = 240.0
"""An idle producer takes a new id after this time: the server forgets a record after ten
minutes."""


REMEMBERED_RUNS = 2_000


class WrittenRuns:
    """The runs that acknowledged calls wrote to, each with the number of its last call.

    It remembers at least the last 2,000 runs of a partition, and at most twice as many: a loss by a
    failover concerns the last moments.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all: what an idle store wrote minutes ago has reached the replicas."""
        self._recent: dict[str, int] = {}
        self._older: dict[str, int] = {}
        self._dropped = -1
        """The last call of a run that was forgotten to make room."""

    def note(self, call: NumberedCall) -> None:
        """Remember the runs of an acknowledged call."""
        recent, n = self._recent, call.n
        for group in call.groups:
            recent[group.writes[0].run_id] = n
        if len(recent) > REMEMBERED_RUNS:
            self._dropped = max(self._older.values(), default=self._dropped)
            self._recent, self._older = {}, recent

    def after(self, last: int) -> tuple[set[str], bool]:
        """The runs that calls after ``last`` wrote to, and whether all of them are remembered."""
        runs = {**self._older, **self._recent}
        if not last:
            # Without a record, calls of this store's earlier producers may be lost, too.
            last = -1
        return {run_id for run_id, n in runs.items() if n > last}, self._dropped <= last

    def renumber(self) -> None:
        """A new producer begins: calls so far come before its first one."""
        self._older = dict.fromkeys({**self._older, **self._recent}, 0)
        self._recent = {}
        self._dropped = min(self._dropped, 0)


class NumberedCalls:
    """Numbers calls without a gap; decides when the next one may leave."""

    def __init__(self) -> None:
        self.in_flight: deque[NumberedCall] = deque()
        self.written = WrittenRuns()
        self.restart()
        self._last_weights: tuple[int, int] = (0, 0)
        """Of the last two calls."""
        self.early_weight = 0
        """From this weight of waiting writes on, the next call may leave before the end of a turn.

        A hundred tasks that write in turn get their answers together and write again together. With
        all of that in one call, client and server would wait for each other. So the server begins
        when half of what usually waits is there.
        """

    def restart(self) -> None:
        """Begin with a new producer id, and number the calls in flight anew."""
        self.producer = secrets.token_hex(8)
        self.known = 0
        self.last_used = math.inf
        self.written.renumber()
        for n, call in enumerate(self.in_flight, 1):
            call.n = n
        self.n = len(self.in_flight)

    def form(self, waiting: WaitingRuns, now: float) -> NumberedCall:
        """Form the next call of what waits; it is in flight from then on.

        Args:
            waiting: what it is taken from.
            now: the loop's clock.
        """
        if not self.in_flight and now - self.last_used > PRODUCER_SECONDS:
            self.restart()
            self.written.forget()
        self.last_used = now
        self.n += 1
        weight = waiting.weight
        groups = waiting.take()
        weight -= waiting.weight
        self._last_weights = (self._last_weights[1], weight)
        call = NumberedCall(self.n, groups, 0, weight)
        self.in_flight.append(call)
        self._note_change()
        return call

    def settle(self, call: NumberedCall) -> None:
        """Note that the first call in flight was answered."""
        self.known = max(self.known, call.n)
        self.written.note(call)
        self.drop(call)

    def drop(self, call: NumberedCall) -> None:
        """Remove a call from those in flight."""
        self.in_flight.remove(call)
        self._note_change()

    def _note_change(self) -> None:
        self.early_weight = (sum(self._last_weights) + 1) // 2
        if self.in_flight:
            self.early_weight = self.in_flight[0].weight

    def arguments(self, call: NumberedCall, durations: Durations, recorded: str) -> list[str | int]:
        """The ARGV of a call."""
        settled = self.in_flight[0].n - 1
        call.producer = self.producer
        return call.arguments(self.producer, settled, self.known, durations, recorded)

    def may_send(self, weight: int) -> bool:
        """Whether the next call may leave at the end of a turn of the loop.

        Args:
            weight: of all that waits.
        """
        if len(self.in_flight) == CALLS_IN_FLIGHT:
            return False
        if not self.in_flight:
            return True
        first = self.in_flight[0]
        # A reply that has come and is not read yet may be an error: then what is in flight is sent
        # again first, in its order.
        is_answered = first.reply is not None and first.reply.done()
        return not is_answered and 2 * weight >= first.weight
