"""A note of what a closed folder looks like, so that a manifest that was cut off is found.

RocksDB takes a manifest that ends early for an older state of the folder, and removes the tables
that it does not name. The note is there while the folder is closed in good order, no longer.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from murmur_streams.stores.local.rocksdb.failures import damaged

NAME = "murmur-streams.closed"


def leave(path: Path) -> None:
    """Note the manifest of a folder that was closed; without a note nothing is checked."""
    with suppress(OSError):
        manifest = _manifest(path)
        (path / NAME).write_text(f"{manifest.name} {manifest.stat().st_size}\n", encoding="ascii")


def check(path: Path) -> None:
    """Compare the folder with the note, if it has one.

    Raises:
        StoreDamagedError: the manifest is not as long as it was.
    """
    with suppress(OSError, ValueError):
        name, size = (path / NAME).read_text(encoding="ascii").split()
        manifest = _manifest(path)
        # Another manifest is the work of a tool that opened the folder since.
        found = manifest.stat().st_size if manifest.name == name else int(size)
        if found != int(size):
            raise damaged(path, f"{name} has {found} bytes and had {size} when it was closed")


def take(path: Path) -> bytes | None:
    """Remove the note, before the folder is opened: a killed process must not leave an old one.

    Returns:
        What it said; None when there was none.
    """
    with suppress(OSError):
        said = (path / NAME).read_bytes()
        (path / NAME).unlink()
        return said
    return None


def put_back(path: Path, said: bytes | None) -> None:
    """Leave the note that was taken, since the folder could not be opened."""
    if said is not None:
        with suppress(OSError):
            (path / NAME).write_bytes(said)


def _manifest(path: Path) -> Path:
    return path / (path / "CURRENT").read_text(encoding="ascii").strip()
