"""Principals, the authenticated callers, and their credentials: bearer tokens and stream tickets.

A ticket is signed text; any pod with the same secret can read it. A bearer token is looked up by
its hash. The tokens file has the callers and their scopes; it is read again after each change.

TOML, one ``[[tokens]]`` each::

    [[tokens]]
    name = "web"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    scopes = ["submit", "read"]
    tenant = "acme"                    # optional; without it, the runs without a tenant
    expires = 2031-01-31T00:00:00Z     # optional; without it, never

Instead of ``sha256`` there may be ``token``, the secret itself. Several tokens with one name are
one caller: to rotate, add the new one, and remove the old one when no client uses it any more.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, Self, cast

from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError
from murmur_streams.core.model.limits import check_tenant
from murmur_streams.wire.problems import BAD_REQUEST, LONG_HEADERS, UNAUTHORIZED, ProblemError

LONGEST_TICKET = 1_024
_PURPOSE = b"murmur-streams stream ticket 1\n"


class Scope(StrEnum):
    """A permission of a caller."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"
    """Everything, on the runs of all tenants."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller."""

    name: str
    """For logs and limits; never a secret."""
    scopes: frozenset[Scope]
    tenant: str | None = None
    """The tenant whose runs it sees; None: the runs without a tenant."""
    run_id: str | None = None
    """The only run that it may see, if it came with a stream ticket; None: no such limit."""
    expires_at: float | None = None
    """When its credentials expire, in Unix seconds; an open stream ends then. None: never."""

    @property
    def is_admin(self) -> bool:
        """Whether it sees the runs of all tenants."""
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """Whether it has this scope."""
        return scope in self.scopes or self.is_admin

    def sees(self, run_id: str, tenant: str | None) -> bool:
        """Whether it may see a run with this id and tenant."""
        return self.run_id in {None, run_id} and (self.is_admin or self.tenant == tenant)


ANYONE = Principal("anyone", frozenset(Scope))
"""Every caller of a server that needs no credentials."""


def sign_ticket(secret: bytes, who: Principal, seconds: float) -> str:
    """A ticket that lets this caller stream its ``run_id`` for so many seconds from now."""
    fields = [who.run_id, who.tenant, time.time() + seconds, who.name, who.expires_at]
    body = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=")
    return b".".join((body, _signature(secret, body))).decode()


def read_ticket(secret: bytes, ticket: str) -> Principal | None:
    """The caller that it was signed for; None if it has another signature, or has expired."""
    if len(ticket) > LONGEST_TICKET:
        return None
    body, _, signature = ticket.encode(errors="replace").partition(b".")
    if not hmac.compare_digest(_signature(secret, body), signature):
        return None
    fields = base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4))
    run_id, tenant, until, name, expires_at = json.loads(fields)
    if time.time() >= until:
        return None
    return Principal(name, frozenset({Scope.READ}), tenant, run_id, expires_at)


def seconds_left(who: Principal, most: float) -> float:
    """The validity of a ticket: at most ``most``, and at most that of the caller's credentials."""
    if who.expires_at is None:
        return most
    return max(0.0, min(most, who.expires_at - time.time()))


def _signature(secret: bytes, body: bytes) -> bytes:
    # With the purpose, a text that was signed with the same secret for another use is not a ticket.
    made = hmac.digest(secret, _PURPOSE + body, hashlib.sha256)
    return base64.urlsafe_b64encode(made).rstrip(b"=")


logger = logging.getLogger("murmur_streams.server")

PREFIX = "mst_"
"""How our tokens begin, so that scanners for leaked secrets recognize them."""
SHORTEST = 16
LONGEST = 4_096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(rf"[A-Za-z0-9._~+/-]{{{SHORTEST},{LONGEST}}}=*")
CHALLENGE = {"WWW-Authenticate": "Bearer"}
_CREDENTIALS = re.compile(rb"bearer ([!-~]+)", re.IGNORECASE)
_SCHEME_BYTES = len(b"Bearer ")
_FIELDS = frozenset({"name", "token", "sha256", "scopes", "tenant", "expires"})


@dataclass(frozen=True, slots=True)
class Token:
    """One record: the hash of a token, and the principal that has the token."""

    sha256: bytes
    principal: Principal
    is_plain: bool = field(default=False, compare=False)
    """Whether the file has the token itself, not only its hash."""


class TokensFile:
    """The records of a file, always as the file is now.

    While a changed file is invalid, the records from before stay in force: a file that is read in
    the middle of a write must not lock callers out.

    Raises:
        StoreConfigurationError: the file is invalid when it is first read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._state()
        self._tokens = self._read()

    def tokens(self) -> Sequence[Token]:
        """The records; the file is read again if it has changed."""
        state = self._state()
        if state != self._seen:
            self._seen = state
            try:
                self._tokens = self._read()
            except StoreConfigurationError as error:
                logger.error("the tokens of before stay in force: %s", error)  # noqa: TRY400  # a traceback would add nothing
            else:
                logger.info("%d tokens were read from %s", len(self._tokens), self._path)
        return self._tokens

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _read(self) -> tuple[Token, ...]:
        try:
            with self._path.open(encoding="utf-8-sig") as file:
                tokens = parse_tokens(file.read())
                mode = os.fstat(file.fileno()).st_mode
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise StoreConfigurationError(f"the tokens file {self._path}: {why}") from None
        if any(token.is_plain for token in tokens) and is_open_to_others(mode):
            logger.warning(
                "the tokens file %s has tokens as they are, and others on this machine have access "
                "to it: chmod 600 it, or keep their hashes, as `murmur-streams token` prints them",
                self._path,
            )
        elif is_open_to_others(mode, to_write=True):
            logger.warning(
                "others on this machine can write records of their own into the tokens file %s: "
                "chmod go-w it",
                self._path,
            )
        return tokens


class Authenticator(Protocol):
    """Finds the caller of a request by its headers, whose names are in lower case.

    Raises:
        ProblemError: 401 for missing or invalid credentials, 400 or 431 for malformed headers.
    """

    async def __call__(self, headers: list[tuple[bytes, bytes]]) -> Principal: ...


class BearerTokens:
    """``Authorization: Bearer TOKEN``, by a list of tokens or a file of them.

    A token's hash is compared with every record, so that the time of an answer shows nothing about
    the records.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens: Callable[[], Sequence[Token]] = lambda: tokens

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """By a tokens file; changes of the file apply at once.

        Raises:
            StoreConfigurationError: it cannot be read.
        """
        authenticator = cls(())
        authenticator._tokens = TokensFile(path).tokens
        return authenticator

    async def __call__(self, headers: list[tuple[bytes, bytes]]) -> Principal:
        """The caller; see Authenticator."""
        given = digest(bearer_token(headers))
        found: Principal | None = None
        for token in self._tokens():
            if hmac.compare_digest(token.sha256, given):
                found = token.principal
        if found is None or (found.expires_at is not None and time.time() >= found.expires_at):
            raise unauthorized("this token is not good here, or no more")
        return found


def bearer_token(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The token of a request's one Authorization header.

    Raises:
        ProblemError: 401 without one, 400 for two, 431 if it is longer than any token.
    """
    given = [value for name, value in headers if name == b"authorization"]
    if not given:
        raise unauthorized("send Authorization: Bearer TOKEN")
    if len(given) > 1:
        raise ProblemError(BAD_REQUEST, "there may be one Authorization header")
    if len(given[0]) > LONGEST + _SCHEME_BYTES:
        raise ProblemError(LONG_HEADERS, f"a token has {LONGEST} characters at most")
    found = _CREDENTIALS.fullmatch(given[0])
    if found is None:
        raise unauthorized("send Authorization: Bearer TOKEN, with one space and nothing after it")
    return found[1]


def unauthorized(detail: str) -> ProblemError:
    """The 401 with its challenge, which names the scheme to use."""
    return ProblemError(UNAUTHORIZED, detail, headers=CHALLENGE)


def is_open_to_others(mode: int, *, to_write: bool = False) -> bool:
    """Whether a file's mode gives access to its group or to others; False on Windows."""
    return os.name == "posix" and bool(mode & (0o022 if to_write else 0o077))


def parse_tokens(text: str) -> tuple[Token, ...]:
    """Parse a file's text; ValueError names the record and the rule that it breaks, no secret."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {error}") from None
    records: object = found.get("tokens")
    if set(found) != {"tokens"} or not isinstance(records, list) or not records:
        raise ValueError("it must hold [[tokens]] records, one at least, and nothing else")
    tokens: list[Token] = []
    for number, record in enumerate(cast("list[object]", records), 1):
        try:
            tokens.append(_token(record))
        except (ValueError, InvalidInputError) as error:
            raise ValueError(f"record {number}: {error}") from None
    return tuple(tokens)


def draw_token() -> str:
    """Draw a new token."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: bytes) -> bytes:
    """The hash of a token. One round is enough: tokens are random, so guessing is hopeless."""
    return hashlib.sha256(token).digest()


def check_name(name: object) -> str:
    """Return the name if it is a valid name of a caller, else raise InvalidInputError."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise InvalidInputError(
        "name must be 1 to 64 characters of A-Z a-z 0-9 . _ - that begin with a letter or a digit"
    )


def record_of(token: str, who: Principal) -> str:
    """The record of a token, as text for the file."""
    lines = ["[[tokens]]", f'name = "{who.name}"', f'sha256 = "{digest(token.encode()).hex()}"']
    scopes = ", ".join(f'"{scope}"' for scope in Scope if scope in who.scopes)
    lines.append(f"scopes = [{scopes}]")
    lines += [f'tenant = "{who.tenant}"'] if who.tenant is not None else []
    if who.expires_at is not None:
        moment = datetime.fromtimestamp(int(who.expires_at)).astimezone()
        lines.append(f"expires = {moment.isoformat()}")
    return "\n".join(lines) + "\n"


def _token(given: object) -> Token:
    if not isinstance(given, dict):
        raise ValueError("it must be a table")  # noqa: TRY004  # a rule of the file like the others
    record = cast("dict[str, Any]", given)
    if unknown := sorted(set(record) - _FIELDS):
        raise ValueError(f"{unknown[0]!a} is none of {', '.join(sorted(_FIELDS))}")
    who = Principal(
        name=check_name(record.get("name")),
        scopes=_scopes(record.get("scopes")),
        tenant=check_tenant(record.get("tenant")),
        expires_at=_expires(record.get("expires")),
    )
    return Token(_hash(record), who, is_plain="token" in record)


def _hash(record: dict[str, Any]) -> bytes:
    token, sha256 = record.get("token"), record.get("sha256")
    if (token is None) == (sha256 is None):
        raise ValueError("it needs either token or sha256")
    if token is not None:
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError(
                f"token must be {SHORTEST} characters or more of A-Z a-z 0-9 . _ ~ + / -"
            )
        return digest(token.encode())
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError("sha256 must be 64 hexadecimal digits, in lower case")
    return bytes.fromhex(sha256)


def _scopes(given: object) -> frozenset[Scope]:
    names = cast("list[object]", given) if isinstance(given, list) else []
    if not names or not all(isinstance(name, str) and name in set(Scope) for name in names):
        raise ValueError(f"scopes must be a list of {', '.join(Scope)}, one at least")
    return frozenset(Scope(str(name)) for name in names)


def _expires(given: object) -> float | None:
    if given is None:
        return None
    if not isinstance(given, datetime) or given.tzinfo is None:
        raise ValueError("expires must be a moment with its zone, such as 2031-01-31T00:00:00Z")
    return given.timestamp()
