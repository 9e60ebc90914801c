"""Archives as lines of JSON, one value a line. Later versions only add to the format.

The first line is a header. A run follows as one line with its payloads as texts (the journal has
the hashes of their bytes), lines with its entries, and a last line with the SHA-256 of the lines
before. A run without its last line is not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from murmur_streams.core.archive.run_archive import RunArchive, pages
from murmur_streams.core.json_values import decode_json
from murmur_streams.core.model.entries import JournalEntry
from murmur_streams.core.model.errors import InvalidArchiveError
from murmur_streams.core.model.limits import MAX_COUNT

FORMAT = 1
HEADER = f'{{"murmur_streams":"runs","format":{FORMAT}}}\n'
"""The first line of a file. It has more members when it names the selection of its runs."""
LONGEST_HEADER_BYTES = 1024


class CutOffError(InvalidArchiveError):
    """The lines end in the middle of a run: the program that wrote them was interrupted."""


def header(of: Mapping[str, object]) -> str:
    """The first line of a file, with the selection of its runs, which readers may ignore."""
    return _line({"murmur_streams": "runs", "format": FORMAT, "of": of})


def may_be_header(start: bytes) -> bool:
    """Whether the first bytes of a file are a header, or the beginning of one."""
    known = HEADER.encode().rstrip(b"}\n")
    return start.startswith(known) or known.startswith(start)


def lines(archive: RunArchive) -> Iterator[str]:
    """Encode one run.

    Args:
        archive: the run.

    Returns:
        Its lines, each with its newline; HEADER must stand once before those of all runs.
    """
    digest = hashlib.sha256()
    for line in _open_lines(archive):
        digest.update(line.encode())
        yield line
    count = len(archive.entries)
    yield _line({"end": archive.run_id, "entries": count, "sha256": digest.hexdigest()})


def digest_of(archive: RunArchive) -> str:
    """The SHA-256 of a run's lines; two archives have the same only if they are equal."""
    digest = hashlib.sha256()
    for line in _open_lines(archive):
        digest.update(line.encode())
    return digest.hexdigest()


def archives(source: Iterable[bytes]) -> Iterator[RunArchive]:
    """Decode a file's lines, one run at a time.

    Args:
        source: the lines, each with its newline.

    Raises:
        CutOffError: they end before a run does.
        InvalidArchiveError: they are damaged or of another format; the text names the line.
    """
    decoder = ArchiveDecoder()
    for line in source:
        archive = decoder.feed(line)
        if archive is not None:
            yield archive
    decoder.end()


class ArchiveDecoder:
    """Decodes lines into archives; it holds one run at a time."""

    def __init__(self) -> None:
        self.line = 0
        """The number of the last line that was fed."""
        self.of: object = None
        """The selection of runs that the first line names; None when it names none."""
        self._has_header = False
        self._run: dict[str, Any] | None = None
        self._entries: list[JournalEntry] = []
        self._digest = hashlib.sha256()

    def feed(self, line: bytes) -> RunArchive | None:
        """Take the next line with its newline, which only the last line may lack.

        Returns:
            The run, complete, when the line is its last one; None for any other line.

        Raises:
            CutOffError: only a part of the line is there.
            InvalidArchiveError: it is damaged or of another format; do not use its run.
        """
        self.line += 1
        if not line.endswith(b"\n") and not _is_json(line):
            if not self._has_header and not may_be_header(line):
                raise self._wrong(_NOT_OURS)
            raise CutOffError(f"line {self.line} is cut off in its middle: {_ADVICE}")
        value = self._decoded(line)
        if not self._has_header:
            self._check_header(value)
            return None
        if "run" in value:
            self._begin(value)
        elif "entries" in value and "end" not in value:
            self._add(value)
        elif "end" in value:
            return self._ended(value)
        else:
            raise self._wrong("it is neither a run, nor entries, nor a run's end")
        self._digest.update(line)
        return None

    def end(self) -> None:
        """Check, after the last line, that nothing is missing.

        Raises:
            CutOffError: the lines end in the middle of a run, or before the header.
        """
        if not self._has_header:
            raise CutOffError(f"the first line is missing, which would be {HEADER.strip()}")
        if self._run is not None:
            raise CutOffError(
                f"after line {self.line} the rest of run {ascii(self._run['run'])[:140]} is "
                f"missing: {_ADVICE}"
            )

    def _decoded(self, line: bytes) -> dict[str, Any]:
        try:
            value: object = decode_json(line)
        except (ValueError, RecursionError) as error:
            why = "it is not JSON" if self._has_header else _NOT_OURS
            raise self._wrong(f"{why} ({ascii(str(error))[1:-1][:80]})") from None
        if not isinstance(value, dict):
            raise self._wrong("it is not a JSON object" if self._has_header else _NOT_OURS)
        return cast("dict[str, Any]", value)

    def _check_header(self, value: dict[str, Any]) -> None:
        if value.get("murmur_streams") != "runs":
            raise self._wrong(_NOT_OURS)
        if value.get("format") != FORMAT:
            raise self._wrong(
                f"the format is {ascii(value.get('format'))[:40]}, and this program reads "
                f"{FORMAT}: upgrade murmur-streams"
            )
        self._has_header, self.of = True, value.get("of")

    def _begin(self, value: dict[str, Any]) -> None:
        if self._run is not None:
            raise self._wrong(f"the run before it, {ascii(self._run['run'])[:140]}, has no end")
        for name in ("run", "epoch"):
            if not isinstance(value.get(name), str):
                raise self._wrong(f"{name} is missing, or not a text")
        for name in ("input", "result", "checkpoint"):
            if not isinstance(value.get(name), str | None):
                raise self._wrong(f"{name} is not a text, but must be JSON as a text")
        self._run, self._entries = value, []
        self._digest = hashlib.sha256()

    def _add(self, value: dict[str, Any]) -> None:
        if self._run is None:
            raise self._wrong("these entries belong to no run: its first line is missing")
        rows: object = value["entries"]
        if not isinstance(rows, list):
            raise self._wrong("entries is not a list")
        run_id, epoch = self._run["run"], self._run["epoch"]
        for row in cast("list[object]", rows):
            if not _is_row(row):
                raise self._wrong("an entry is not [ms, seq, {fields}] with texts as fields")
            ms, seq, fields = cast("tuple[int, int, dict[str, str]]", row)
            self._entries.append(JournalEntry(run_id, epoch, ms, seq, fields))

    def _ended(self, value: dict[str, Any]) -> RunArchive:
        run, self._run = self._run, None
        if run is None:
            raise self._wrong("this end belongs to no run: its first line is missing")
        if value["end"] != run["run"]:
            raise self._wrong(f"it ends another run than {ascii(run['run'])[:140]}")
        if value.get("entries") != len(self._entries):
            raise self._wrong(
                f"it counts {ascii(value.get('entries'))[:20]} entries, but there are "
                f"{len(self._entries)}"
            )
        if value.get("sha256") != self._digest.hexdigest():
            raise self._wrong("the run's lines are not those that were written: sha256 differs")
        entries, self._entries = tuple(self._entries), []
        payloads = (run.get("input"), run.get("result"), run.get("checkpoint"))
        return RunArchive(run["run"], run["epoch"], entries, *payloads)

    def _wrong(self, what: str) -> InvalidArchiveError:
        return InvalidArchiveError(f"line {self.line} is wrong: {what}")


_ADVICE = "export it again, or finish the export with --resume"
_NOT_OURS = "this is not an export of runs, or its first line was lost"


def _is_json(line: bytes) -> bool:
    try:
        decode_json(line)
    except (ValueError, RecursionError):
        return False
    return True


def _open_lines(archive: RunArchive) -> Iterator[str]:
    yield _line(
        {
            "run": archive.run_id,
            "epoch": archive.epoch,
            "input": archive.input_json,
            "result": archive.result_json,
            "checkpoint": archive.checkpoint_json,
        }
    )
    for page in pages(archive.entries):
        yield _line({"entries": [[entry.ms, entry.seq, dict(entry.fields)] for entry in page]})


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _is_row(row: object) -> bool:
    if not isinstance(row, list) or len(cast("list[object]", row)) != 3:  # noqa: PLR2004  # as said
        return False
    ms, seq, fields = cast("list[Any]", row)
    return (
        all(type(number) is int and 0 <= number <= MAX_COUNT for number in (ms, seq))
        and isinstance(fields, dict)
        and all(isinstance(text, str) for text in cast("dict[str, object]", fields).values())
    )
