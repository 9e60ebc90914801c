"""The text of the server's config file: its settings, quoted so that no path can add to them."""

from __future__ import annotations

import os
from pathlib import Path

from murmur_streams.embedded.keeper import LOG

# Only settings that every server since Redis 5 knows: one found on PATH has to read them too.
SETTINGS = (
    ("port", "0"),
    ("unixsocketperm", "700"),
    ("daemonize", "no"),
    ("save", ""),
    ("appendonly", "yes"),
    ("appendfsync", "everysec"),
    ("stream-node-max-bytes", "512"),
    ("maxmemory-policy", "noeviction"),
)
_PLAIN = frozenset(b"/._- abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def config_text(folder: Path, socket_path: Path) -> str:
    """The whole config file of the server that keeps its data in ``folder``."""
    paths = (
        ("dir", str(folder)),
        ("logfile", str(folder / LOG)),
        ("unixsocket", str(socket_path)),
    )
    lines = (f"{name} {quoted(value)}\n" for name, value in (*SETTINGS, *paths))
    return "# Written at each start; changes made here are lost.\n" + "".join(lines)


def quoted(value: str) -> str:
    """``value`` as one quoted word of the config file; no byte of it can end the word or line."""
    encoded = os.fsencode(value)
    return '"' + "".join(chr(b) if b in _PLAIN else f"\\x{b:02x}" for b in encoded) + '"'
