"""Removes everything from a URL that may be a secret, so that it can be shown."""

from __future__ import annotations

import re

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?(/{0,2})(.*)", re.DOTALL)
_OF_PATHS = frozenset({"sqlite:", "rocksdb:", "embedded:", "unix:", "memory:"})
_OPTION = re.compile(
    r"([?&;](?:[^=&#]*(?:password|passwd|secret|token)[^=&]*|user(?:name)?)=)[^&]*", re.IGNORECASE
)
# A port that is not a number may be a password whose @ was forgotten.
_BAD_PORT = re.compile(r"([^/?#:\[]*):(?!\d*(?:[/?#]|$)).*", re.DOTALL)
# A comma separates the hosts of several Sentinels or nodes.
_BAD_PORTS = re.compile(r"((?:[^/?#:,\[]*(?::\d*)?,)*[^/?#:\[]*):(?!\d*(?:[/?#,]|$)).*", re.DOTALL)


def redacted(url: str) -> str:
    """Show a URL without its credentials, however malformed it is.

    A user's name stays if a password follows it. Alone it may be a password: ``redis://SECRET@h``.
    """
    scheme, slashes, rest = _parts(str(url))
    credentials, at, address = rest.rpartition("@")
    if at and _is_credentials(scheme, slashes, credentials):
        user, _, password = credentials.partition(":")
        is_named = bool(slashes) and bool(password)
        rest = f"{user}:***@{address}" if is_named else f"***@{address}"
    elif slashes == "//" and scheme not in _OF_PATHS and (host := _bad_port(scheme, rest)):
        rest = f"{host[1]}:***"
    return _OPTION.sub(r"\1***", f"{scheme}{slashes}{rest}")


def _bad_port(scheme: str, rest: str) -> re.Match[str] | None:
    has_several = scheme.endswith(("+sentinel:", "+cluster:"))
    return (_BAD_PORTS if has_several else _BAD_PORT).fullmatch(rest)


def _parts(url: str) -> tuple[str, str, str]:
    found = _URL.fullmatch(url)
    assert found is not None  # noqa: S101  # the pattern takes any text
    scheme, slashes, rest = found[1] or "", found[2], found[3]
    if scheme and not slashes and scheme not in _OF_PATHS:
        # "user:SECRET@host" has no scheme; "redis:host" has nothing to hide before its @.
        return "", "", scheme + rest
    return scheme, slashes, rest


def _is_credentials(scheme: str, slashes: str, before: str) -> bool:
    """Whether the text before the last @ is credentials, and not a part of a path."""
    # Up to the last @: a password with a slash or a question mark in it is still a password.
    if scheme not in _OF_PATHS or ":" in before:
        return True
    return slashes == "//" and not before.startswith("/")
