"""The data folder: where it is, who may use it, whether a server holds it, and where its socket is.

The socket is in the folder, or elsewhere if that path is too long. The kernel's limit is 104 to 108
bytes by system; ours is 100 everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

from murmur_streams.core.model.errors import EmbeddedServerError
from murmur_streams.embedded.keeper import KEEP, LOCK, SOCKET_RECORD
from murmur_streams.settings import variable

SOCKET = "server.sock"
LONGEST_SOCKET_PATH = 100
_SHORTER = f"set MURMUR_DATA_DIR to a path under {LONGEST_SOCKET_PATH - len(SOCKET)} bytes"
_NAME = "murmur-streams"
_OURS = frozenset({LOCK, SOCKET, "appendonlydir"})
_ELSEWHERE = "choose another folder with MURMUR_DATA_DIR, or set MURMUR_URL to a running server"
_WHAT_TO_DO = {
    errno.EROFS: "it is on a read-only file system; " + _ELSEWHERE,
    errno.EACCES: "this user may not enter or write it; " + _ELSEWHERE,
    errno.EPERM: "this user may not enter or write it; " + _ELSEWHERE,
    errno.ENOSPC: "the disk is full; free some space, or " + _ELSEWHERE,
    errno.EDQUOT: "the disk quota is used up; free some space, or " + _ELSEWHERE,
    errno.ENOTDIR: "a part of the path is a file; " + _ELSEWHERE,
    errno.EEXIST: "it is a file, not a folder; " + _ELSEWHERE,
    errno.ENAMETOOLONG: "the path is too long; " + _ELSEWHERE,
}


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """MURMUR_DATA_DIR of ``environ``, else ``murmur-streams`` in the user's data folder.

    Creates nothing. Raises EmbeddedServerError when the user has no home folder.
    """
    chosen = variable("data_dir").read(environ)
    if isinstance(chosen, Path):
        return _expanded(chosen)
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or _home(environ) / "AppData" / "Local") / _NAME
    if sys.platform == "darwin":
        return _home(environ) / "Library" / "Application Support" / _NAME
    xdg = Path(environ.get("XDG_DATA_HOME", ""))
    # A relative one is invalid by the XDG rules, and would differ from folder to folder.
    return (xdg if xdg.is_absolute() else _home(environ) / ".local" / "share") / _NAME


def _home(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME", ""))
    return home if home.is_absolute() else _expanded(Path("~"))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise EmbeddedServerError(
            "this user has no home folder for the data: set MURMUR_DATA_DIR to a folder, "
            "or MURMUR_URL to a running server"
        ) from None


def require_unix() -> None:
    """Raise EmbeddedServerError on a system without unix sockets and file locks (Windows)."""
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "the embedded server does not run on Windows: set MURMUR_URL to a running Redis or "
            "Valkey (WSL or a container will do), or to sqlite:runs.db"
        )


def real_folder(data_dir: Path) -> Path:
    """The one absolute path of the folder, whatever links and relative parts lead to it."""
    require_unix()
    return Path(os.path.realpath(data_dir))


def folder_exists(folder: Path) -> bool:
    """Whether the folder is there and ours, tightened to mode 0700; False: it is not there.

    Raises EmbeddedServerError when it belongs to another user or is not a folder. It is checked
    before each connect: a socket in such a folder may belong to anyone.
    """
    with _clear_errors(folder):
        try:
            state = folder.stat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(state.st_mode):
            raise FileExistsError(errno.EEXIST, "")
    if state.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"the data folder {str(folder)!r} belongs to {_user_name(state.st_uid)}, and this "
            f"process runs as {_user_name(os.geteuid())}: run as that user, or {_ELSEWHERE}"
        )
    if state.st_mode & 0o077:
        _tighten(folder)
    return True


def _tighten(folder: Path) -> None:
    with _clear_errors(folder):
        names = {path.name for path in folder.iterdir()}
        if names and not names & _OURS:
            # A shared folder, such as /tmp: closing it would lock all other users out.
            raise EmbeddedServerError(
                f"the data folder {str(folder)!r} is open to other users and holds other files; "
                f"name a folder of its own, such as {str(folder / _NAME)!r}"
            )
        folder.chmod(0o700)


def prepare_folder(folder: Path) -> None:
    """Create the folder with mode 0700 if need be, and see that the server can write to it.

    Raises EmbeddedServerError when it cannot be used; the text says why and what to do.
    """
    with _clear_errors(folder):
        if not folder_exists(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            folder_exists(folder)  # Another process may have been first.
        os.close(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))


@contextlib.contextmanager
def _clear_errors(folder: Path) -> Generator[None]:
    """Turn an error of the system into one that says why, and what to do."""
    try:
        yield
    except OSError as error:
        reason = _WHAT_TO_DO.get(error.errno or 0, f"{error.strerror}; {_ELSEWHERE}")
        raise EmbeddedServerError(
            f"the data folder {str(folder)!r} cannot be used: {reason}"
        ) from None


def _user_name(uid: int) -> str:
    """``name (uid 1000)``, or ``uid 1000`` when the system has no name for it."""
    import pwd  # Not on Windows, where this module is imported.

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def is_locked(folder: Path) -> bool:
    """Whether a keeper or a server holds the folder; touches it for microseconds only."""
    import fcntl  # Not on Windows, where this module is imported.

    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Unlocked by hand: a fork in another thread may have copied the descriptor.
        fcntl.flock(lock, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def set_keep(data_dir: Path, keep: bool) -> None:
    """Set whether the folder's server stays when idle; it follows within seconds.

    ``keep`` lasts until :func:`stop_server`, or until it is taken back. Works before the server is
    started, too. Raises EmbeddedServerError when the folder cannot be used.
    """
    folder = real_folder(data_dir)
    prepare_folder(folder)
    with _clear_errors(folder):
        if keep:
            (folder / KEEP).touch(mode=0o600)
        else:
            (folder / KEEP).unlink(missing_ok=True)


def is_keep_set(data_dir: Path) -> bool:
    """Whether the folder's server stays when idle (see :func:`set_keep`)."""
    return (real_folder(data_dir) / KEEP).exists()


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
    # A copied folder has the record of another one; a foreign folder may have any socket.
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
        return len(str(path).encode()) <= LONGEST_SOCKET_PATH
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
            f"{_SHORTER}"
        ) from None
    if not _is_private(shared):
        raise EmbeddedServerError(
            f"the folder for the server's socket, {str(shared)!r}, belongs to "
            f"{_user_name(os.lstat(shared).st_uid)} or is not a folder: have it removed, or "
            f"{_SHORTER}"
        )
    return shared
