"""Programs about one process and its locks: ``python -m tests.stores.sqlite.forking WHAT PATH``."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

from murmur_streams.core.model.errors import StoreError
from murmur_streams.stores.local.engine.database import Database
from murmur_streams.stores.local.sqlite.store import open_sqlite
from tests.stores.local.databases import a_run, an_entry, appended, created, stored_run, write


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _open(path: Path) -> Database:
    return open_sqlite(path, sync=False, feed_max_entries=100)


def _look_from_elsewhere(path: Path) -> None:
    """Another process opens the file, and is the last to close it for all that it can see."""
    command = [sys.executable, "-m", "tests.stores.sqlite.forking", "look", str(path)]
    subprocess.run(command, check=True)


def look(path: Path) -> None:
    _open(path).close()


def two_stores(path: Path) -> None:
    """Write while another store of this process comes and goes, and die."""
    database = _open(path)
    write(database, created(a_run()))
    other = _open(path)
    other.reader().close()
    other.close()
    _look_from_elsewhere(path)
    _write_and_die(database)


def many_threads(path: Path) -> None:
    """Open it in many threads at once, keep one, and die writing."""
    begin = threading.Barrier(8)
    opened: list[Database] = []

    def opens() -> None:
        begin.wait()
        opened.append(_open(path))

    threads = [threading.Thread(target=opens) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write(opened[0], created(a_run()))
    for each in opened[1:]:
        each.close()
    _look_from_elsewhere(path)
    _write_and_die(opened[0])


def forgotten(path: Path) -> None:
    """Forget a store, and write with another."""
    database = _open(path)
    write(database, created(a_run()))
    _open(path)
    gc.collect()
    _look_from_elsewhere(path)
    _write_and_die(database)


def _write_and_die(database: Database) -> None:
    for seq in range(2, 50):
        write(database, appended(stored_run(database), an_entry(a_run(), seq)))
        _say(str(seq))
    os.kill(os.getpid(), 9)


def fork_while_open(path: Path) -> None:
    """Open it in a child, while it is open here and after that."""
    database = _open(path)
    write(database, created(a_run()))
    _in_child(path)
    write(database, appended(stored_run(database), an_entry(a_run(), 2)))
    database.close()
    _in_child(path)


def fork_by_link(path: Path) -> None:
    """It is the same file by another name."""
    database = _open(path)
    link = path.with_name("link.db")
    link.symlink_to(path)
    _in_child(link)
    database.close()


def _in_child(path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            child = _open(path)
            write(child, created(a_run("of-the-child")))
            child.close()
            _say("opened")
        except StoreError as error:
            _say(f"{type(error).__name__}: {error}")
        os._exit(0)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
