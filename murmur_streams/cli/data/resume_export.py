"""An export that was interrupted: how far it got, and whether this command may continue it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from murmur_streams.cli.data.run_files import LONGEST_LINE_BYTES, check_plain, file_errors
from murmur_streams.core.archive.lines import (
    LONGEST_HEADER_BYTES,
    ArchiveDecoder,
    CutOffError,
    may_be_header,
)
from murmur_streams.core.archive.run_archive import RunArchive
from murmur_streams.core.model.errors import (
    InvalidArchiveError,
    RunDamagedError,
    RunNotFoundError,
    StoreConfigurationError,
)
from murmur_streams.core.model.pages import RunFilter, listing_key
from murmur_streams.core.model.run import Run
from murmur_streams.core.rules.evolve import fold
from murmur_streams.stores.work_store import WorkStore


@dataclass(slots=True)
class Whole:
    """The contents of an unfinished file up to the end of its last whole run."""

    runs: int = 0
    size: int = 0
    """In bytes; 0: the first line is missing or incomplete."""
    of: object = None
    """The selection of runs that its first line names; None when it names none."""
    last: Run | None = None
    """The last run, as it was when it was written."""
    cursor: str | None = None
    """The cursor of a listing that continues after the last run."""
    run_ids: set[str] = field(default_factory=set[str])
    """The wanted runs that it contains."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The selection of runs of an export."""

    run_ids: tuple[str, ...]
    which: RunFilter

    @property
    def members(self) -> dict[str, object]:
        """The selection for the first line of a file, without the ids, which may be many."""
        state = self.which.state
        return {
            "state": None if state is None else str(state),
            "target": self.which.target,
            "ids": bool(self.run_ids),
        }


def read_whole(path: Path, wanted: frozenset[str]) -> Whole:
    """Read how far an interrupted export got.

    Args:
        path: its file; one that does not exist is created, and counts as empty.
        wanted: the ids of the named runs; those found go into ``run_ids``.

    Raises:
        InvalidArchiveError: the file is not an export, or has other damage than a missing end.
    """
    check_plain(path)
    whole = Whole()
    with file_errors(str(path)):
        path.touch()
    with file_errors(str(path)), path.open("rb") as stream:
        if not (first := stream.readline(LONGEST_HEADER_BYTES)).endswith(b"\n"):
            if len(first) < LONGEST_HEADER_BYTES and may_be_header(first):
                return whole
            raise InvalidArchiveError(f"{path} is not an export of runs; choose another file")
        stream.seek(0)
        try:
            _read_runs(stream, whole, wanted)
        except CutOffError:
            return whole
        except InvalidArchiveError as error:
            raise InvalidArchiveError(
                f"{path}: {error}; --resume goes on only where an export stopped: export to "
                "another file"
            ) from None
    return whole


def _read_runs(stream: BinaryIO, whole: Whole, wanted: frozenset[str]) -> None:
    decoder, size = ArchiveDecoder(), 0
    while (line := stream.readline(LONGEST_LINE_BYTES)).endswith(b"\n"):
        archive = decoder.feed(line)
        size += len(line)
        if archive is not None:
            _note(whole, archive, wanted)
        if archive is not None or decoder.line == 1:
            whole.size = size
        whole.of = decoder.of
    # A run without its last newline is written again, so that the next one begins on a new line.


def _note(whole: Whole, archive: RunArchive, wanted: frozenset[str]) -> None:
    run = fold(archive.entries)
    whole.runs += 1
    whole.last = run
    whole.cursor = None if run is None else listing_key(run.created_ms, run.run_id)
    if archive.run_id in wanted:
        whole.run_ids.add(archive.run_id)


async def check_resumable(path: Path, whole: Whole, asked: Asked, store: WorkStore) -> None:
    """Refuse to resume a file that has other runs, or runs of another store.

    Otherwise the listing would continue at a cursor of another selection or store and end without
    an error, and the file would lack runs.

    Raises:
        StoreConfigurationError: the file must not be resumed; nothing was written.
    """
    if whole.of is not None and whole.of != asked.members:
        raise StoreConfigurationError(
            f"{path} is an export of {_describe(whole.of)}, and this command asks for "
            f"{_describe(asked.members)}: {_INSTEAD}"
        )
    last = whole.last
    if last is None:
        return
    if not _is_asked(last, whole, asked):
        raise StoreConfigurationError(
            f"the last run of {path}, {last.run_id}, is not one of those that this command "
            f"exports: {_INSTEAD}"
        )
    try:
        is_here = (await store.snapshot(last.run_id)).epoch == last.epoch
    except RunNotFoundError:
        is_here = False
    except RunDamagedError:
        is_here = True
    if not is_here:
        raise StoreConfigurationError(
            f"the last run of {path}, {last.run_id}, is not in this store: go on with the --url "
            "and --prefix that it was begun with; if the run has expired or was deleted since, "
            "export to another file"
        )


def _is_asked(last: Run, whole: Whole, asked: Asked) -> bool:
    if asked.run_ids:
        return last.run_id in asked.run_ids
    # A run may change its state between the listing and its export, so the selection in the first
    # line counts, where it is there.
    return whole.of is not None or asked.which.wants(last)


def _describe(of: object) -> str:
    if not isinstance(of, Mapping):
        return "other runs"
    members = cast("Mapping[str, object]", of)
    if members.get("ids"):
        return "named runs"
    options = [f"--{name} {value}" for name in ("state", "target") if (value := members.get(name))]
    return " ".join(options) or "all runs"


_INSTEAD = "go on with the options that it was begun with, or export to another file"
