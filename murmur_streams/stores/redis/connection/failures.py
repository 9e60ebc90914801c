"""Judges a driver's exception: was the call executed, may it be retried, what should users do."""

from __future__ import annotations

import asyncio
import re
from enum import Enum
from typing import cast

from redis import exceptions

from murmur_streams.core.model import errors
from murmur_streams.stores.redis.connection.transport import tls_refusal


class Fate(Enum):
    """Whether a failed call was executed."""

    NOT_EXECUTED = "not executed"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    BUG = "bug"
    """Neither a connection nor the server raises it: an error in this package or in the driver."""


class NeverSentError(Exception):
    """The server cannot have received the call; the cause says why, such as no connection."""


class TooFewReplicasError(Exception):
    """Too few replicas have confirmed a call in time; the primary has executed it."""


class UnconfirmedError(Exception):
    """A script wrote nothing, because its partition does not record this number of partitions.

    Either the server was emptied, or another program filled it with another number of partitions:
    preparing the server again finds out which.
    """


class ScriptError(exceptions.ResponseError):
    """The error of one command in a call whose other commands were executed."""

    def __init__(self, text: str) -> None:
        code = text.split(" ", 1)[0]
        super().__init__(text)  # pyright: ignore[reportUnknownMemberType]  # redis-py's *args
        self.status_code = code if code.isupper() else "ERR"


UNCONFIRMED = "UNCONFIRMED"
"""The tag of that answer."""

_ELSEWHERE = frozenset({"MASTERDOWN", "LOADING", "READONLY"})
"""Codes of a server that is not the primary, or not yet."""
_MOVING = {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"}
"""Codes of a cluster's node that does not serve the slot, or not all of it."""
_LATER = _ELSEWHERE | _MOVING | {"BUSY", "NOREPLICAS", "UNBLOCKED"}
FINAL = frozenset({Fate.REFUSED, Fate.BUG})
"""A retry cannot end differently."""
_NEVER_EXECUTED = (exceptions.MaxConnectionsError, UnconfirmedError)
_MAYBE_EXECUTED = (
    *(exceptions.ConnectionError, exceptions.TimeoutError, exceptions.InvalidResponse, OSError),
    TooFewReplicasError,
)
_AUTH = frozenset({"NOAUTH", "WRONGPASS"})
# The answer to a long command before the password: a server has smaller limits until then.
_UNAUTHENTICATED = "Protocol error: unauthenticated"
# Servers before 7.0 wrap the error of a script's command in one of their own. Later servers do so
# only with errors that the script raised again, and put the code in front.
_INNER = re.compile(
    r"@user_script:.*?(?:-([A-Z]+)|: (WRONGTYPE)) |^([A-Z]{3,}) .*script: .*@user_script"
)
# How Redis and Valkey report a script's command that the user may not call.
_DENIED = ("The user executing the script can't", "ACL failure in script")
_DAMAGED = re.compile(r"DAMAGED (?:\S*:\{\d+\}:run:)?(\S+) (\w+)")


def code_of(error: BaseException) -> str:
    """The code in front of the server's error text; "" for errors that are not the server's."""
    code = getattr(error, "status_code", None)
    if any(sign in str(error) for sign in _DENIED):
        return "NOPERM"
    if isinstance(code, str):
        inner = _INNER.search(str(error)) if code == "ERR" else None
        return (inner[1] or inner[2] or inner[3]) if inner else code
    first = str(error).split(" ", 1)[0]
    return first if isinstance(error, exceptions.ResponseError) and first.isupper() else ""


def fate_of(error: BaseException) -> Fate:
    """Judge whether the server may have executed the call."""
    code = code_of(error)
    if code in _LATER or isinstance(error, _NEVER_EXECUTED) or is_not_loaded(error):
        return Fate.NOT_EXECUTED
    if code in _AUTH:
        return Fate.REFUSED
    if code and type(error) is exceptions.ConnectionError:
        # "max number of clients reached" is sent to a new connection before any command.
        return Fate.NOT_EXECUTED
    if code or isinstance(error, (exceptions.AuthenticationError, exceptions.ResponseError)):
        return Fate.REFUSED
    if tls_refusal(error) is not None:
        return Fate.REFUSED
    if isinstance(error, _MAYBE_EXECUTED):
        return Fate.UNKNOWN
    if isinstance(error, (exceptions.RedisError, errors.MurmurError)):
        return Fate.REFUSED
    return Fate.UNKNOWN if _is_of_closed_transport(error) else Fate.BUG


def is_for_now(error: BaseException) -> bool:
    """Whether a server answered that it executes nothing now; it is not another node's business."""
    code = code_of(error)
    return bool(code) and code not in _MOVING and fate_of(error) is Fate.NOT_EXECUTED


def is_not_loaded(error: BaseException) -> bool:
    """Whether a server did not execute a call because it does not have its script or function."""
    return isinstance(error, exceptions.NoScriptError) or is_not_found(error)


def is_not_found(error: BaseException) -> bool:
    """Whether a server that has functions does not have the one that was called."""
    return isinstance(error, exceptions.ResponseError) and "Function not found" in str(error)


def _is_of_closed_transport(error: BaseException) -> bool:
    """Whether a write failed because the peer had closed the connection before it.

    On CPython 3.12, before 3.13.10 and on 3.14.0, such a write ends with the TypeError or the
    AttributeError of a transport without a socket, and on uvloop with a RuntimeError. A TypeError
    from anywhere else is a bug, which a retry would only hide: so the frame that raised it must be
    one of the transport.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame
    if isinstance(error, RuntimeError):
        is_uvloops = str(frame.f_globals.get("__name__")).startswith("uvloop.")
        return is_uvloops and "handler is closed" in str(error)
    transport = frame.f_locals.get("self")
    is_transports = isinstance(transport, asyncio.BaseTransport)
    is_let_go = isinstance(error, (TypeError, AttributeError))
    return is_let_go and is_transports and transport.is_closing()


def needs_new_connection(error: BaseException) -> bool:
    """Whether a retry needs a new connection, because this server is not the primary.

    After a failover behind a stable address (a DNS name, a virtual IP, a proxy) the open
    connections still lead to the old primary, and only new ones to the new primary.
    """
    return code_of(error) in _ELSEWHERE


def is_credentials(error: BaseException) -> bool:
    """Whether the server refused the user's name or password."""
    return code_of(error) in _AUTH or isinstance(error, exceptions.AuthenticationError)


def is_shut(error: BaseException) -> bool:
    """Whether every connection fails until a password or a certificate is changed."""
    return is_credentials(error) or tls_refusal(error) is not None


def reason_of(error: BaseException) -> BaseException:
    """The driver's error of a failed call, also if the call was never sent."""
    return error.__cause__ or error if isinstance(error, NeverSentError) else error


_MEANINGS: dict[str, tuple[type[errors.StoreError], str]] = {
    "NOPERM": (
        errors.StoreConfigurationError,
        "{where} does not permit this user what the store needs ({text}); grant it to the user",
    ),
    "NOAUTH": (
        errors.StoreConfigurationError,
        "{where} refused the user name or password ({text}); check the URL's credentials",
    ),
    "READONLY": (
        errors.StoreReadOnlyError,
        (
            "{where} is a replica (READONLY); use the primary's address, or wait until a "
            "primary answers there"
        ),
    ),
    "MISCONF": (
        errors.StoreReadOnlyError,
        (
            "{where} takes no writes because it cannot persist them; "
            "free disk space or mend the disk, then try again"
        ),
    ),
    "OOM": (
        errors.StoreFullError,
        (
            "{where} is out of memory; raise maxmemory, or free some: deleting runs, purging dead "
            "letters and sweeping work meanwhile"
        ),
    ),
    "WRONGTYPE": (
        errors.StoreError,
        (
            "a key on {where} has another type than the key table gives it, so something else "
            "wrote it ({text}); `murmur-streams audit RUN` and `murmur-streams keys RUN` name a "
            "run's keys, `redis-cli TYPE KEY` names a key's type (embedded: `murmur-streams redis`)"
        ),
    ),
}
"""The meaning of an error code for a user."""


def clear_error(error: BaseException, where: str) -> BaseException:
    """Turn a refusal of the server into one sentence that says what to do.

    A bug is returned unchanged, with its own traceback.

    Args:
        error: what the driver raised.
        where: the server's address, without a password.
    """
    if isinstance(error, errors.MurmurError) or fate_of(error) is Fate.BUG:
        return error
    if (refusal := tls_refusal(error)) is not None:
        return errors.StoreConfigurationError(f"no TLS connection to {where}: {refusal}")
    code, text = code_of(error), str(error)
    if text.startswith(_UNAUTHENTICATED):
        code, text = "NOAUTH", "Authentication required."
    elif code != "NOPERM" and is_credentials(error):
        code = "NOAUTH"
    if code == "DAMAGED" and (found := _DAMAGED.search(text)):
        return errors.RunDamagedError(found[1], f"{found[2]} is not what it must be")
    kind, meaning = _MEANINGS.get(
        code, (errors.StoreError, "{where} answered with an error: {text}")
    )
    return kind(meaning.format(where=where, text=text))


def unavailable(where: str, reason: BaseException) -> errors.MurmurError:
    """The error for a server that could not be reached, or was not ready, until time was over."""
    if code_of(reason) == "READONLY":
        return cast("errors.MurmurError", clear_error(reason, where))
    said = str(reason) or type(reason).__name__
    code = code_of(reason)
    if fate_of(reason) is Fate.NOT_EXECUTED:
        # The driver removes the code from some errors only.
        said = said if said.startswith(code) else f"{code} {said}"
        return errors.StoreUnavailableError(f"{where} is not ready ({said}); try again later")
    return errors.StoreUnavailableError(
        f"{where} cannot be reached ({said}); check that it runs and that the address is right"
    )
