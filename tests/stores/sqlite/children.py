"""Processes of their own that write to a store: ``children.py <what> <file> ...``.

Each says ``ready`` and waits for a line, so that several can begin at one moment.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
RUNS = ("a", "b", "c")
FILE_BYTES = 256 * 1024


def start(what: str, *args: object) -> subprocess.Popen[str]:
    """Start one."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), what, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def go(*children: subprocess.Popen[str]) -> None:
    """Let them begin, once all are ready."""
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def end(child: subprocess.Popen[str]) -> str:
    """Wait for its end; what it printed."""
    printed, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    return printed


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _append_for_ever(path: Path) -> None:
    """One entry to each of the runs in every group, until killed; says each version."""
    database = open_sqlite(path, sync=False, feed_max_entries=1_000_000)
    if database.stored("a") is None:
        write(database, *(created(a_run(name)) for name in RUNS))
    while True:
        database.begin()
        stored = [stored_run(database, name) for name in RUNS]
        seq = stored[0].run.version + 1
        entries = [an_entry(one.run, seq, data="x" * 400) for one in stored]
        database.commit(
            group(*(appended(one, entry) for one, entry in zip(stored, entries, strict=True)))
        )
        _say(str(seq))


def _append(path: Path, mark: str, count: str) -> None:
    """Entries to the run ``r1``, one a group."""
    database = open_sqlite(path, sync=False, feed_max_entries=1_000_000)
    for number in range(int(count)):
        database.begin()
        stored = stored_run(database)
        entry = an_entry(stored.run, stored.run.version + 1, data=f"{mark}{number}")
        database.commit(group(appended(stored, entry)))
    database.close()


def _open(path: Path) -> None:
    open_sqlite(path, sync=False, feed_max_entries=10).close()


def _fill(path: Path) -> None:
    """Write until this process may not make the file larger; says what happened, and goes on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    database = open_sqlite(path, sync=False, feed_max_entries=10)
    write(database, created(a_run()))
    seq = 1
    try:
        while True:
            stored = stored_run(database)
            seq = stored.run.version + 1
            write(database, appended(stored, an_entry(stored.run, seq, data="x" * 20_000)))
    except StoreError as error:
        _say(f"{type(error).__name__} at {seq}: {error}")
    _say(f"has {stored_run(database).run.version} and {seqs(database)[-1]}")
    database.close()


if __name__ == "__main__":
    from murmur_streams.core.model.errors import StoreError
    from murmur_streams.stores.local.sqlite.store import open_sqlite
    from tests.stores.local.databases import (
        a_run,
        an_entry,
        appended,
        created,
        group,
        seqs,
        stored_run,
        write,
    )

    _say("ready")
    sys.stdin.readline()
    work = {"append-for-ever": _append_for_ever, "append": _append, "open": _open, "fill": _fill}
    work[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
