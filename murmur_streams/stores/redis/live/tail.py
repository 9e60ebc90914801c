"""The tails of the Redis store: replay a journal with XRANGE, then take what the live source has.

A tail only fetches; ``core.rules.reading`` decides what its reader gets. The tail checks that the
journal still continues after the reader's position when it opens, and again whenever the live
source lost its connection. Tails that make the same read at the same time share it, so that a wave
of reconnects costs one read for each run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Self

from murmur_streams.core.model.commands import Seal
from murmur_streams.core.model.entries import Cursor, EntryType, JournalEntry
from murmur_streams.core.model.errors import CursorResetError, RunDamagedError, RunNotFoundError
from murmur_streams.core.model.events import RunEvent
from murmur_streams.core.model.limits import check_run_id
from murmur_streams.core.model.states import TERMINAL_STATES
from murmur_streams.core.rules.decide import Answer
from murmur_streams.core.rules.reading import Reading
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.live.hub import Live
from murmur_streams.stores.redis.live.reader_ends import seal_of
from murmur_streams.stores.redis.live.seen import LastSeen, just_before, surely_before
from murmur_streams.stores.redis.live.shared_reads import SharedReads
from murmur_streams.stores.redis.live.sources import Followed
from murmur_streams.stores.redis.live.views import Raw, entries_of, events_of
from murmur_streams.stores.redis.replies import read_entry, read_id, text
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.tail import read_tail

PAGE_ENTRIES = 256
CLOSING_SECONDS = 0.05
"""How long a reader waits for the closing event after a terminal state, before it asks when the run
is sealed without one. Most programs push that event at once; the question would delay it."""


class RedisTails:
    """Opens tails on the journals of one store."""

    def __init__(
        self,
        server: Server,
        durations: Durations,
        execute: Callable[[str, Seal], Awaitable[Answer]],
    ) -> None:
        self.server = server
        self.seal = seal_of(server, durations, execute)
        self._shared: dict[str, SharedReads] = {}
        """By server: those that wait for one must not delay the reads of others."""
        self._live: dict[int, Live] = {}

    @property
    def followers(self) -> int:
        """How many subscribers wait for news."""
        return sum(live.followers for live in self._live.values())

    async def close(self) -> None:
        """Wake every subscriber with StoreClosedError."""
        for live in self._live.values():
            await live.close()

    def events(self, run_id: str, after: str | None) -> AsyncGenerator[RunEvent]:
        """Yield the run's events after a cursor up to the seal, waiting for what is to come.

        Raises:
            RunNotFoundError, InvalidCursorError: at the first event.
            CursorGapError, CursorResetError: the tail cannot go on without missing or repeated
                entries.
            StoreUnavailableError: the server stayed out of reach; resume by the last cursor.
        """
        tail = RedisTail(self, Reading(run_id), after, follow=True)
        return read_tail(tail, events_of)

    def journal(
        self, run_id: str, after: str | None, *, follow: bool
    ) -> AsyncGenerator[JournalEntry]:
        """Yield all entries, late ones included; with ``follow`` also those until the seal."""
        tail = RedisTail(self, Reading(run_id, reads_late=True), after, follow=follow)
        return read_tail(tail, entries_of, follow=follow)

    def shared(self, partition: int) -> SharedReads:
        """The shared reads of a partition's server."""
        return self._shared.setdefault(self.server.nodes.name_of(partition), SharedReads())

    def live(self, partition: int) -> Live:
        """The live source of a partition."""
        live = self._live.get(partition)
        if live is None:
            live = self._live[partition] = Live(self.server, partition)
        return live


class RedisTail:
    """One reader of one run, on the journal and on the buffer that local readers share."""

    __slots__ = (
        "_after",
        "_expects_closing",
        "_hole_at",
        "_is_live",
        "_is_replaying",
        "_last",
        "_missed",
        "_partition",
        "_run",
        "_tails",
        "reading",
    )

    def __init__(
        self, tails: RedisTails, reading: Reading, after: str | None, *, follow: bool
    ) -> None:
        self.reading = reading
        self._tails = tails
        self._after = after
        self._is_live = follow
        self._partition = 0
        self._run: Followed | None = None
        self._missed: tuple[int, int] = (0, 0)
        self._is_replaying = True
        self._hole_at: int | None = None
        self._last = LastSeen()
        self._expects_closing = True

    async def __aenter__(self) -> Self:
        reading = self.reading
        check_run_id(reading.run_id)
        cursor = None if self._after is None else Cursor.parse(self._after)
        server = self._tails.server
        last_id = await server.locator.find(reading.run_id, lambda: self._begin(cursor))
        self._expects_closing = not reading.has_ended
        if cursor is not None:
            reading.start_after(cursor)
        # The stream of a sealed run is in its journal: nothing to follow.
        if self._is_live and reading.seal is None:
            self._run = run = self._tails.live(self._partition).follow(reading.run_id, last_id)
            self._missed = (run.rereads, run.verifies)
        return self

    async def _begin(self, cursor: Cursor | None) -> str:
        # A run stays in its partition as long as it lives.
        self._partition = self._tails.server.keys.partition(self.reading.run_id)
        return await self.look(cursor)

    async def __aexit__(self, *_: object) -> None:
        if self._run is not None:
            self._tails.live(self._partition).leave(self._run)

    @property
    def _journal(self) -> str:
        return self._tails.server.keys.journal(self.reading.run_id, self._partition)

    async def fetch(self) -> list[Raw]:
        """Fetch a page of the journal, or what the live source has; wait when it has nothing."""
        raws = await self._fetch()
        if raws:
            self._last.note(raws[-1])
        return raws

    async def _fetch(self) -> list[Raw]:
        run, reading = self._run, self.reading
        if run is None or self._is_replaying:
            return await self._read_page()
        while True:
            if run.error is not None:
                raise run.error
            # In this order: a change that comes while the buffer is looked at ends the wait below.
            # If the tail counted changes after it had looked, an entry that came in between would
            # be counted already, and the reader would get it only with the next one.
            changes, missed = run.changes, (run.rereads, run.verifies)
            raws = run.since(reading.seq)
            if raws is None or missed != self._missed:
                break
            if raws:
                run.release()
                return raws
            await run.changed(changes, await self._patience(run))
        if missed[1] != self._missed[1]:
            await self._look_again()
        self._missed, self._is_replaying = missed, True
        self._hole_at = reading.seq if raws is None else None
        return await self._read_page()

    async def look(self, after: Cursor | None) -> str:
        """Read what the run is now; raise when its journal does not continue after a cursor.

        Returns:
            The id of the journal's last entry.
        """
        run_id, journal, tails = self.reading.run_id, self._journal, self._tails
        key = tails.server.keys.run(run_id, self._partition)
        commands: tuple[tuple[object, ...], ...] = (
            ("HMGET", key, "epoch", "version", "state", "seal"),
            ("XREVRANGE", journal, "+", "-", "COUNT", 1),
        )
        if after is not None:
            at = after.entry_id
            commands += (
                ("XRANGE", journal, at, at),
                ("XRANGE", journal, "-", "+", "COUNT", 1),
            )
        fields, newest, *around = await tails.shared(self._partition).read(
            commands, lambda: tails.server.read_all(*commands)
        )
        if fields[0] is None:
            raise RunNotFoundError(run_id)
        epoch, version = text(fields[0]), int(fields[1])
        if not newest:
            # Trimming never empties a journal, and the entries to wait for may never come.
            raise CursorResetError(
                f"the journal of run {run_id!r} is gone: deleted or emptied by hand, or the server "
                f"lost its data; its hash counts {version} entries",
                None,
            )
        if after is not None:
            found, oldest = around
            before = just_before(oldest, epoch)
            # After a failover, another entry may have the same time and number.
            is_same = bool(found) and not self._last.was_replaced_by(found[0])
            try:
                after.check(epoch=epoch, version=version, found=is_same, oldest=before)
            except CursorResetError as reset:
                if after.epoch == epoch:
                    reset.resume_cursor = await self._surely_seen(after)
                raise
        seal, has_ended = fields[3], text(fields[2]) in TERMINAL_STATES
        self.reading.learn(
            epoch=epoch, version=version, seal=int(seal) if seal else None, has_ended=has_ended
        )
        return text(newest[0][0])

    async def _surely_seen(self, cursor: Cursor) -> str | None:
        """The last entry of the journal that a reader with this cursor has seen, by its time."""
        before = ("XREVRANGE", self._journal, surely_before(cursor.ms), "-", "COUNT", 1)
        for raw in await self._tails.server.read(*before):
            ms, seq = read_id(raw[0])
            if seq < cursor.seq:
                return str(Cursor(cursor.epoch, ms, seq))
        return None

    async def _read_page(self) -> list[Raw]:
        """Read on in the journal; the replay is over where it ends."""
        reading, tails = self.reading, self._tails
        after = f"({reading.cursor.entry_id}"
        command = ("XRANGE", self._journal, after, "+", "COUNT", PAGE_ENTRIES)
        page: list[Raw] = await tails.shared(self._partition).read(
            command, lambda: tails.server.read(*command)
        )
        last = read_id(page[-1][0])[1] if page else reading.seq
        self._is_replaying = len(page) == PAGE_ENTRIES or last < reading.version
        if page:
            return page
        if self._is_replaying:
            await self._check_short_journal()
        elif self._run is not None and self._hole_at == reading.seq:
            return self._after_hole(self._run)
        return []

    async def _check_short_journal(self) -> None:
        """The journal ended before the version that its run had when the tail looked at it.

        Without this check, a run that expires between two pages would end its streams without the
        rest of its entries, and without an error.
        """
        reading, promised = self.reading, self.reading.version
        is_there = await self._look_again()
        if is_there and reading.seq < promised <= reading.version:
            what = f"its journal ends at entry {reading.seq} of {reading.version}"
            raise RunDamagedError(reading.run_id, what)

    def _after_hole(self, run: Followed) -> list[Raw]:
        """The oldest buffered entry, when the journal no longer has those before it."""
        oldest = run.oldest()
        if oldest is None or run.since(self.reading.seq) is not None:
            return []
        return [oldest]

    async def _patience(self, run: Followed) -> float | None:
        """How many seconds to wait for news; a run that has ended is sealed when its time comes.

        None: without a limit. The live source itself checks whether the server answers and whether
        the run exists.
        """
        if not self.reading.has_ended or self.reading.seal is not None:
            return None
        if self._expects_closing:
            self._expects_closing = False
            return CLOSING_SECONDS
        run_id, tails = run.run_id, self._tails
        try:
            shared = tails.shared(self._partition)
            answer = await shared.read(("seal", run_id), lambda: tails.seal(run_id))
        except RunNotFoundError:
            # Deleted or expired meanwhile. Only a deletion leaves an entry, so look at the run.
            run.verify()
            return 0.001
        if answer[0] == "OK" and tails.server.use.read_only:
            # The entry that seals the run may never come.
            self.reading.seal = int(answer[1])
            run.reread()
        return max(0.001, int(answer[1]) / 1000) if answer[0] == "WAIT" else 0.001

    async def _look_again(self) -> bool:
        """Check the position; False when the run was deleted and its last entries are left."""
        reading = self.reading
        try:
            await self.look(reading.cursor if reading.seq else None)
        except RunNotFoundError:
            if await self._was_deleted():
                return False
            raise CursorResetError(
                f"run {reading.run_id!r} is gone: deleted, expired, or the server lost its data",
                None,
            ) from None
        return True

    async def _was_deleted(self) -> bool:
        # A deletion leaves the journal for a minute; its last entry is then run.deleted.
        reading = self.reading
        after = f"({reading.cursor.entry_id}"
        last = await self._tails.server.read("XREVRANGE", self._journal, "+", after, "COUNT", 1)
        entries = [read_entry(reading.run_id, reading.epoch, raw) for raw in last]
        return any(entry.type == EntryType.DELETED for entry in entries)
