"""From a request's headers to its principal. Nothing else of a request is read."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self

from murmur_streams.server.auth.principal import Principal
from murmur_streams.server.auth.tokens import LONGEST, Token, TokensFile, digest
from murmur_streams.server.problems import ProblemError
from murmur_streams.wire.problems import BAD_REQUEST, LONG_HEADERS, UNAUTHORIZED

CHALLENGE = {"WWW-Authenticate": "Bearer"}
_CREDENTIALS = re.compile(rb"bearer ([!-~]+)", re.IGNORECASE)
_SCHEME_BYTES = len(b"Bearer ")


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
