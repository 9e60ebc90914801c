"""Where the socket of a folder's server is: in the folder, or elsewhere if that path is too long.

The kernel's limit is 104 to 108 bytes by system; ours is 100 everywhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded.folder import user_name
from murmur_streams.embedded.keeper import SOCKET_RECORD

SOCKET = "server.sock"
LONGEST = 100


def current_socket(folder: Path) -> Path | None:
    """The socket that the folder's server has, if one runs; None: none was started yet."""
    inside = folder / SOCKET
    if _fits(inside):
        return inside
    # The server may have been started with another XDG_RUNTIME_DIR than ours.
    try:
        recorded = Path((folder / SOCKET_RECORD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    # A copied folder has the record of another one; a foreign folder has anybody's sockets.
    ours = recorded.name == _hashed_name(folder) and _is_private(recorded.parent)
    return recorded if ours else None


def new_socket(folder: Path, environ: Mapping[str, str]) -> Path:
    """The path for the socket of a server to be started; its folder exists and is ours alone.

    Raises EmbeddedServerError when the folder for long paths cannot be used.
    """
    inside = folder / SOCKET
    if _fits(inside):
        return inside
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    in_runtime = Path(runtime) / _hashed_name(folder)
    if Path(runtime).is_absolute() and _fits(in_runtime) and _is_private(Path(runtime)):
        return in_runtime
    return _shared_folder() / _hashed_name(folder)


def _fits(path: Path) -> bool:
    """Whether the path can be an address, and stand in a URL for clients (which is UTF-8)."""
    try:
        return len(str(path).encode()) <= LONGEST
    except UnicodeEncodeError:
        return False


def _hashed_name(folder: Path) -> str:
    import hashlib  # Only for long paths: it is slow to load.

    return f"murmur-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:20]}.sock"


def _is_private(folder: Path) -> bool:
    """Whether this is a folder (not a link) of this user, closed to all other users."""
    try:
        state = os.lstat(folder)
    except OSError:
        return False
    mine = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
    return mine and not state.st_mode & 0o077


def _shared_folder() -> Path:
    """``/tmp/murmur-<uid>``, ours alone; /tmp is short and on every system, TMPDIR is neither."""
    shared = Path(f"/tmp/murmur-{os.geteuid()}")  # noqa: S108 - owner and mode are checked below
    try:
        shared.mkdir(mode=0o700, exist_ok=True)
        state = os.lstat(shared)
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid():
            shared.chmod(0o700)
    except OSError as error:
        raise EmbeddedServerError(
            f"cannot make a folder for the server's socket: {str(shared)!r}: {error.strerror}; "
            f"set MURMUR_DATA_DIR to a path under {LONGEST - len(SOCKET)} bytes"
        ) from None
    if not _is_private(shared):
        raise EmbeddedServerError(
            f"the folder for the server's socket, {str(shared)!r}, belongs to "
            f"{user_name(os.lstat(shared).st_uid)} or is not a folder: have it removed, or set "
            f"MURMUR_DATA_DIR to a path under {LONGEST - len(SOCKET)} bytes"
        )
    return shared
