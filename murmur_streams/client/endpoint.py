"""One server as httpx sees it: address, credentials, requests, limits on sizes, and faults.

An error of httpx over the environment's proxies and certificates becomes one clear error here.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Self, TypedDict, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from murmur_streams.client.answers import LostError
from murmur_streams.client.requests import Ask, Patience
from murmur_streams.core.model.errors import InvalidInputError, StoreConfigurationError
from murmur_streams.core.redaction import redacted
from murmur_streams.core.tls import TlsCheck, tls_fault

C = TypeVar("C", httpx.Client, httpx.AsyncClient)

CONNECT_SECONDS = 10.0
# Each stream has a connection of its own; only the server limits their number.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
CONNECTION_FAULTS = (httpx.TransportError, ssl.SSLError)
"""Errors that end a request without an answer. httpx does not wrap a TLS alert that comes late."""
_BEFORE_SENDING = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
PROXY_SCHEMES = ("http", "https", "all")
IGNORE = (
    "let the client ignore the environment: trust_env=False in a program, MURMUR_TRUST_ENV=0 on "
    "the command line"
)


class ClientOptions(TypedDict, total=False):
    """The keywords of both clients; see ``AsyncClient``."""

    timeout_seconds: float
    retry_seconds: float
    silence_seconds: float
    max_response_bytes: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a server, and what every request to it has."""

    url: str
    headers: dict[str, str] = field(repr=False)
    patience: Patience = field(repr=False)
    trust_env: bool = field(default=True, repr=False)
    """Whether httpx reads the environment's proxies and certificates."""

    @classmethod
    def of(
        cls, base_url: str, token: str | None, options: ClientOptions, *, trust_env: bool
    ) -> Self:
        """Check a caller's address and token.

        Raises:
            InvalidInputError: the address is not a plain http(s) URL, or a header cannot hold the
                token; the text does not contain the token.
        """
        headers = {
            "Accept": "application/json",
            # A compressed body could decompress to any size.
            "Accept-Encoding": "identity",
            "User-Agent": f"murmur-streams/{version('murmur-streams')}",
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {_checked_token(token)}"
        return cls(_checked_url(base_url), headers, Patience(**options), trust_env)

    def client(self, kind: type[C], transport: Any) -> C:
        """Make a client of httpx, which reads the environment if it is trusted.

        Raises:
            StoreConfigurationError: httpx cannot take the value of a variable; the text names it.
        """
        uses_proxies = self.trust_env and transport is None
        if uses_proxies:
            _check_proxies()
        try:
            return kind(
                base_url=self.url,
                headers=self.headers,
                transport=transport,
                limits=LIMITS,
                trust_env=self.trust_env,
            )
        except OSError as error:
            raise _certificate_error(error) from error
        except (httpx.InvalidURL, ValueError) as error:
            if not uses_proxies:
                raise
            # The server's address and the proxies were checked before: this is what is left.
            shown = ascii(getproxies().get("no", ""))[:100]
            raise StoreConfigurationError(
                f"{_variable('no')} is {shown}, but the HTTP client takes only host names, "
                "addresses and IPv4 networks there, and IPv6 addresses without brackets; correct "
                f"it, or {IGNORE}"
            ) from error

    def request(
        self, client: httpx.Client | httpx.AsyncClient, ask: Ask, *, is_stream: bool = False
    ) -> httpx.Request:
        """A request as httpx sends it."""
        seconds = self.patience.timeout_seconds
        read = self.patience.silence_seconds if is_stream else seconds + ask.wait_seconds
        headers = dict(ask.headers)
        if ask.body is not None:
            headers["Content-Type"] = "application/json"
        return client.build_request(
            ask.method,
            ask.path,
            params=list(ask.query) or None,
            headers=headers,
            content=ask.body,
            timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds), read=read),
        )

    def lost(self, error: Exception) -> LostError:
        """The error for a fault of the connection.

        Raises:
            StoreConfigurationError: the TLS settings do not fit; another try would fail, too.
        """
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        fault = tls_fault(error)
        if fault is not None:
            by = trusted_by() if self.trust_env else ""
            raise StoreConfigurationError(
                f"no connection to {self.url}: {fault.text}; {_TLS_ADVICE[fault.check]}{by}"
            ) from None
        if isinstance(error, httpx.RemoteProtocolError) and self.url.startswith("http:"):
            text += "; a port for TLS ends connections like this: if it is one, use https://"
        return LostError(
            f"{self.url} gave no answer ({text})",
            may_have_arrived=not isinstance(error, _BEFORE_SENDING),
        )


def _checked_token(token: object) -> str:
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise InvalidInputError("the token must be text of visible ASCII characters")
    if " " in token:
        raise InvalidInputError("the token must not hold a space")
    return token


def _checked_url(base_url: object) -> str:
    text = base_url if isinstance(base_url, str) else ""
    try:
        parts = urlsplit(text)
        is_plain = parts.scheme in {"http", "https"} and bool(parts.hostname)
        is_plain = is_plain and (parts.port is None or parts.port > 0) and text.isprintable()
        check_host(httpx.URL(text))
    except (ValueError, httpx.InvalidURL):
        is_plain = False
        parts = urlsplit("")
    if parts.username or parts.password or "@" in parts.netloc:
        # The URL is printed and logged, so it must not hold secrets.
        raise InvalidInputError("credentials do not belong into the server's URL; pass token=")
    if not is_plain or parts.query or parts.fragment:
        raise InvalidInputError(
            f"{ascii(redacted(text))[:80]} is not the address of a server; use http://host:port or https://host/path"
        )
    return text.rstrip("/")


_TLS_ADVICE = {
    TlsCheck.AUTHORITY: "name the authority's file in the variable SSL_CERT_FILE",
    TlsCheck.NAME: "use the host name that the certificate was issued for",
    TlsCheck.DATES: "renew the certificate, or set this machine's clock",
    TlsCheck.CLIENT_CERTIFICATE: "give the client one by transport=, with a context of its own",
    TlsCheck.VERSION: "compare the TLS versions and ciphers that the server takes",
    TlsCheck.NO_TLS: "use http:// instead of https://, or the server's TLS port",
}


def check_host(url: httpx.URL) -> None:
    """Raise ValueError for a host that a name service cannot be asked for."""
    url.raw_host.decode("ascii").encode("idna")


def trusted_by() -> str:
    """The variable that names the trusted certificates, as the end of a sentence; else empty."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if os.environ.get(name):
            return f"; {name} names the certificates that are trusted"
    return ""


def _check_proxies() -> None:
    proxies = getproxies()
    if "*" in {host.strip() for host in proxies.get("no", "").split(",")}:
        return
    for scheme in PROXY_SCHEMES:
        text = proxies.get(scheme)
        if text:
            _check_proxy(_variable(scheme), text if "://" in text else f"http://{text}")


def _check_proxy(name: str, text: str) -> None:
    """Refuse an address that cannot be used. The error does not repeat it: it may hold a password.

    httpx.Proxy leaves two mistakes to later moments: a missing package for SOCKS is an ImportError
    of the client, and a host that cannot be encoded is a UnicodeError of the first request.
    """
    try:
        proxy = httpx.Proxy(text)
        check_host(proxy.url)
    except (httpx.InvalidURL, ValueError):
        raise StoreConfigurationError(
            f"{name} is not a proxy's address, such as http://host:port; correct it, or {IGNORE}"
        ) from None
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise StoreConfigurationError(
            f"{name} names a SOCKS proxy, which needs pip install 'httpx[socks]'; install it, or "
            f"{IGNORE}"
        )


def _certificate_error(error: OSError) -> BaseException:
    keys = os.environ.get("SSLKEYLOGFILE")
    if keys and error.filename == keys:
        return StoreConfigurationError(
            f"SSLKEYLOGFILE is {ascii(keys)[:100]}, which cannot be written ({error.strerror}); "
            "correct or remove it"
        )
    file = os.environ.get("SSL_CERT_FILE")
    if not file:
        return error
    return StoreConfigurationError(
        f"SSL_CERT_FILE is {ascii(file)[:100]}, which is not a file of certificates "
        f"({error.strerror}); correct it, or {IGNORE}"
    )


def _variable(scheme: str) -> str:
    """The variable that was read: urllib prefers its name in lower case."""
    name = f"{scheme}_proxy"
    for found in (name, *os.environ):
        if found.lower() == name and os.environ.get(found):
            return found
    return f"{name.upper()} (of the system's settings)"
