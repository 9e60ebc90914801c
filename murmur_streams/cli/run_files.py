"""Files of runs, as export writes them and import reads them."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from murmur_streams.core.archive import RunArchive
from murmur_streams.core.archive_lines import HEADER, ArchiveDecoder, CutOffError, lines
from murmur_streams.core.errors import InvalidArchiveError, StoreConfigurationError
from murmur_streams.core.evolve import fold
from murmur_streams.core.pages import listing_key

LONGEST_LINE_BYTES = 512 * 1024 * 1024
"""What a line with three payloads at their limits may come to."""
CHUNK_BYTES = 1024 * 1024


@dataclass(slots=True)
class Whole:
    """What an unfinished file has, up to the end of its last whole run."""

    runs: int = 0
    size: int = 0
    """In bytes; 0: not even the first line is there."""
    cursor: str | None = None
    """Where a listing goes on after the last run."""
    run_ids: set[str] = field(default_factory=set[str])
    """Those of the wanted runs that are there."""


class RunWriter:
    """Writes runs to a file, one after another."""

    def __init__(self, stream: BinaryIO, name: str, *, begin: bool) -> None:
        self._stream, self._name = stream, name
        self.bytes = 0
        if begin:
            self._write([HEADER])

    def write(self, archive: RunArchive) -> None:
        """Write one run; between two calls the file ends with a whole run."""
        self._write(lines(archive))

    def finish(self) -> None:
        """See to it that what was written survives a loss of power."""
        with _told(self._name):
            self._stream.flush()
            if stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode):
                os.fsync(self._stream.fileno())

    def _write(self, texts: Iterator[str] | list[str]) -> None:
        with _told(self._name):
            for text in texts:
                raw = text.encode()
                self._stream.write(raw)
                self.bytes += len(raw)
            self._stream.flush()


@contextmanager
def writing(path: Path | None, whole: Whole | None) -> Generator[RunWriter]:
    """Open what an export writes to.

    Args:
        path: a new file; None for stdout.
        whole: what the file has that is to be gone on with; what is behind it is cut off.

    Raises:
        StoreConfigurationError: the file cannot be written, or is there and is not to be.
    """
    if path is None:
        yield RunWriter(sys.stdout.buffer, "stdout", begin=True)
        return
    with _told(str(path)):
        stream = path.open("xb" if whole is None else "r+b")
    with stream:
        size = 0 if whole is None else whole.size
        stream.truncate(size)
        stream.seek(size)
        yield RunWriter(stream, str(path), begin=size == 0)


def read_whole(path: Path, wanted: frozenset[str]) -> Whole:
    """Read how far an export came that was interrupted.

    Args:
        path: its file; one that is not there yet is as good as empty.
        wanted: the runs whose ids are to be told.

    Raises:
        InvalidArchiveError: the file is no export, or more is wrong with it than a missing end.
    """
    whole, decoder, size = Whole(), ArchiveDecoder(), 0
    with _told(str(path)):
        path.touch()
    with _told(str(path)), path.open("rb") as stream:
        if not (first := stream.read(len(HEADER))).endswith(b"\n"):
            if HEADER.encode().startswith(first):
                return whole
            raise InvalidArchiveError(f"{path} is no export of runs; choose another file")
        stream.seek(0)
        try:
            while line := stream.readline(LONGEST_LINE_BYTES):
                archive = decoder.feed(line)
                size += len(line)
                if archive is not None:
                    _note(whole, archive, wanted)
                if archive is not None or decoder.line == 1:
                    whole.size = size
            decoder.end()
        except CutOffError:
            return whole
        except InvalidArchiveError as error:
            raise InvalidArchiveError(
                f"{path}: {error}; --resume goes on only where an export stopped: export to "
                "another file"
            ) from None
    return whole


def _note(whole: Whole, archive: RunArchive, wanted: frozenset[str]) -> None:
    run = fold(archive.entries)
    whole.runs += 1
    whole.cursor = None if run is None else listing_key(run.created_ms, run.run_id)
    if archive.run_id in wanted:
        whole.run_ids.add(archive.run_id)


class RunReader:
    """Reads the runs of a file or a pipe, one at a time; a context that closes it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.name = "stdin" if path is None else str(path)
        self.bytes = 0
        with _told(self.name):
            self._stream = sys.stdin.buffer if path is None else path.open("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._path is not None:
            self._stream.close()

    async def runs(self) -> AsyncGenerator[RunArchive]:
        """Yield run after run.

        Raises:
            InvalidArchiveError: damaged, cut off or foreign; the runs before were whole.
        """
        decoder = ArchiveDecoder()
        async with aclosing(self._lines()) as lines_of_file:
            async for line in lines_of_file:
                self.bytes += len(line)
                with self._named():
                    archive = decoder.feed(line)
                if archive is not None:
                    yield archive
        with self._named():
            decoder.end()

    @contextmanager
    def _named(self) -> Generator[None]:
        try:
            yield
        except InvalidArchiveError as error:
            raise type(error)(f"{self.name}: {error}") from None

    async def _lines(self) -> AsyncGenerator[bytes]:
        kind = os.fstat(self._stream.fileno()).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            while line := self._line():
                yield line
            return
        # One that waits for a pipe must still hear Ctrl-C.
        parts, size = list[bytes](), 0
        while chunk := await self._chunk():
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                yield b"".join((*parts, end, b"\n"))
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            if size > LONGEST_LINE_BYTES:
                break
        if size:
            yield b"".join(parts)

    def _line(self) -> bytes:
        with _told(self.name):
            return self._stream.readline(LONGEST_LINE_BYTES)

    async def _chunk(self) -> bytes:
        loop, descriptor = asyncio.get_running_loop(), self._stream.fileno()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_reader(descriptor)
        return os.read(descriptor, CHUNK_BYTES)


@contextmanager
def _told(name: str) -> Generator[None]:
    """Turn what the system refuses into a sentence; a reader that went away is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except FileExistsError:
        raise StoreConfigurationError(
            f"{name} is there already: go on with it by --resume, or choose another name"
        ) from None
    except OSError as error:
        raise StoreConfigurationError(f"{name}: {error.strerror or error}") from None
