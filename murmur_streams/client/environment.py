"""Turns what httpx raises over the environment's proxies and certificates into one clear error."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeVar
from urllib.request import getproxies

import httpx

from murmur_streams.core.model.errors import StoreConfigurationError

T = TypeVar("T")

PROXY_SCHEMES = ("http", "https", "all")
IGNORE = (
    "let the client ignore the environment: trust_env=False in a program, MURMUR_TRUST_ENV=0 on "
    "the command line"
)


def connected(make: Callable[[], T], *, uses_proxies: bool) -> T:
    """Make a client of httpx.

    Args:
        make: the constructor; it reads the environment.
        uses_proxies: whether it reads the variables of proxies, too.

    Raises:
        StoreConfigurationError: httpx cannot take the value of a variable; the text names it.
    """
    if uses_proxies:
        _check_proxies()
    try:
        return make()
    except OSError as error:
        raise _certificate_error(error) from error
    except (httpx.InvalidURL, ValueError) as error:
        if not uses_proxies:
            raise
        # The server's address and the proxies were checked before: this is what is left.
        shown = ascii(getproxies().get("no", ""))[:100]
        raise StoreConfigurationError(
            f"{_variable('no')} is {shown}, but the HTTP client takes only host names, addresses "
            f"and IPv4 networks there, and IPv6 addresses without brackets; correct it, or {IGNORE}"
        ) from error


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
