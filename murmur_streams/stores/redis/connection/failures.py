"""What an exception of the driver means for a call: try again, unknown, or a clear error."""

from __future__ import annotations

import asyncio
import re
from enum import Enum
from typing import cast

from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    MaxConnectionsError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from murmur_streams.core.model.errors import (
    MurmurError,
    RunDamagedError,
    StoreConfigurationError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from murmur_streams.stores.redis.connection.tls import tls_refusal


class Fate(Enum):
    """What is known of a call that failed."""

    NOT_EXECUTED = "not executed"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    BUG = "bug"
    """Nothing that a connection or a server raises: an error in this package, or in the client."""


class UnconfirmedError(Exception):
    """A script found that its partition is not known to be one of ours, and wrote nothing.

    Either the server was emptied, or another program has filled it with another number of
    partitions: ``confirm_partitions`` finds out which.
    """


UNCONFIRMED = "UNCONFIRMED"
"""What such a script answers."""

_ELSEWHERE = frozenset({"MASTERDOWN", "LOADING", "READONLY"})
"""A server that answers so is not the primary, or not yet."""
_LATER = _ELSEWHERE | {"BUSY", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "UNBLOCKED"}
FINAL = frozenset({Fate.REFUSED, Fate.BUG})
"""No later try can end differently."""
_NEVER_EXECUTED = (MaxConnectionsError, NoScriptError, UnconfirmedError)
_AUTH = frozenset({"NOAUTH", "WRONGPASS"})
# What a server says to a long command before it has a password: its other limits are tighter then.
_UNAUTHENTICATED = "Protocol error: unauthenticated"
# Before 7.0 the error of a script's inner command is wrapped into one of its own; from then on only
# one that the script has raised again is: it stands in front.
_INNER = re.compile(
    r"@user_script:.*?(?:-([A-Z]+)|: (WRONGTYPE)) |^([A-Z]{3,}) .*script: .*@user_script"
)
# How Redis and Valkey say NOPERM of a command that a script calls.
_DENIED = ("The user executing the script can't", "ACL failure in script")
_DAMAGED = re.compile(r"DAMAGED (?:\S*:\{\d+\}:run:)?(\S+) (\w+)")


def code_of(error: BaseException) -> str:
    """The code that the server put before its error's text, "" when the error is not its own."""
    code = getattr(error, "status_code", None)
    if any(words in str(error) for words in _DENIED):
        return "NOPERM"
    if isinstance(code, str):
        inner = _INNER.search(str(error)) if code == "ERR" else None
        return (inner[1] or inner[2] or inner[3]) if inner else code
    first = str(error).split(" ", 1)[0]
    return first if isinstance(error, ResponseError) and first.isupper() else ""


def fate_of(error: BaseException) -> Fate:
    """Tell whether the server may have executed the call."""
    code = code_of(error)
    if code in _LATER or isinstance(error, _NEVER_EXECUTED):
        return Fate.NOT_EXECUTED
    if code in _AUTH:
        return Fate.REFUSED
    if code and type(error) is RedisConnectionError:
        # "max number of clients reached" comes in place of the answer to whatever was sent.
        return Fate.NOT_EXECUTED
    if code or isinstance(error, (AuthenticationError, ResponseError)):
        return Fate.REFUSED
    if tls_refusal(error) is not None:
        return Fate.REFUSED
    if isinstance(error, (RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError)):
        return Fate.UNKNOWN
    if isinstance(error, (RedisError, MurmurError)):
        return Fate.REFUSED
    return Fate.UNKNOWN if _is_of_closed_transport(error) else Fate.BUG


def _is_of_closed_transport(error: BaseException) -> bool:
    """Whether a write failed because the peer had closed the connection before it.

    On CPython 3.12, before 3.13.10 and on 3.14.0, such a write ends with the TypeError or the
    AttributeError of a transport that has let go of its socket, and on uvloop with a RuntimeError.
    A TypeError from anywhere else is a bug, and to try again would only hide it: so the frame
    that raised it must be the transport's own.
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
    """Whether the server is not the one to ask, so that a retry must connect anew.

    After a failover behind a stable address (a DNS name, a virtual IP, a proxy) the open
    connections still lead to the old primary, and only new ones to the new primary.
    """
    return code_of(error) in _ELSEWHERE


def is_credentials(error: BaseException) -> bool:
    """Whether the server refused the user's name or password."""
    return code_of(error) in _AUTH or isinstance(error, AuthenticationError)


def is_shut(error: BaseException) -> bool:
    """Whether there will be no connection until somebody changes a password or a certificate."""
    return is_credentials(error) or tls_refusal(error) is not None


def clear_error(error: BaseException, where: str) -> BaseException:
    """Turn a refusal of the server into one sentence that says what to do.

    A bug is returned as it is: its own traceback is what is needed to mend it.

    Args:
        error: what the driver raised.
        where: the server's address, without a password.
    """
    if isinstance(error, MurmurError) or fate_of(error) is Fate.BUG:
        return error
    if (refusal := tls_refusal(error)) is not None:
        return StoreConfigurationError(f"no TLS connection to {where}: {refusal}")
    code, text = code_of(error), str(error)
    if text.startswith(_UNAUTHENTICATED):
        code, text = "NOAUTH", "Authentication required."
    if code == "NOPERM":
        return StoreConfigurationError(
            f"{where} does not permit this user what the store needs ({text}); grant it to the user"
        )
    if code in _AUTH or is_credentials(error):
        return StoreConfigurationError(
            f"{where} refused the user name or password ({text}); check the URL's credentials"
        )
    if code == "READONLY":
        return StoreReadOnlyError(
            f"{where} is a replica (READONLY); use the primary's address, or wait until a "
            "primary answers there"
        )
    if code == "MISCONF":
        return StoreReadOnlyError(
            f"{where} takes no writes because it cannot persist them; "
            "free disk space or mend the disk, then try again"
        )
    if code == "OOM":
        return StoreFullError(
            f"{where} is out of memory; raise maxmemory, or free some: deleting runs, purging dead "
            "letters and sweeping work meanwhile"
        )
    return _error_of_data(code, text, where)


def _error_of_data(code: str, text: str, where: str) -> StoreError:
    """The error for what is wrong with a run or a key, and not with the server."""
    if code == "DAMAGED" and (found := _DAMAGED.search(text)):
        return RunDamagedError(found[1], f"{found[2]} is not what it must be")
    return StoreError(_other_error(code, text, where))


def unavailable(where: str, reason: BaseException) -> MurmurError:
    """The error for a server that stayed out of reach, or was not ready for as long."""
    if code_of(reason) == "READONLY":
        return cast("MurmurError", clear_error(reason, where))
    said = str(reason) or type(reason).__name__
    code = code_of(reason)
    if fate_of(reason) is Fate.NOT_EXECUTED:
        # The driver takes the code off some errors and leaves it on others.
        said = said if said.startswith(code) else f"{code} {said}"
        return StoreUnavailableError(f"{where} is not ready ({said}); try again later")
    return StoreUnavailableError(
        f"{where} cannot be reached ({said}); check that it runs and that the address is right"
    )


def _other_error(code: str, text: str, where: str) -> str:
    if code == "WRONGTYPE":
        return (
            f"a key on {where} has another type than the key table gives it, so something else "
            f"wrote it ({text}); `murmur-streams audit RUN` and `murmur-streams keys RUN` name a "
            "run's keys, `redis-cli TYPE KEY` tells what one is (embedded: `murmur-streams redis`)"
        )
    return f"{where} answered with an error: {text}"
