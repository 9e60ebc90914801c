"""Every ``MURMUR_*`` variable of the environment: its name, rule, default and meaning, once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from murmur_streams.core.errors import StoreConfigurationError

DAY_SECONDS = 86_400
TEN_YEARS_SECONDS = 3_650 * DAY_SECONDS
DEFAULT_KEY_PREFIX = "murmur:runs"
LOG_LEVELS = ("debug", "info", "warning", "error")

_WHOLE = re.compile(r"[0-9]{1,12}")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What a variable's text may be, in words and as a function that raises ValueError."""

    words: str
    read: Callable[[str], object]
    may_be_empty: bool = False
    """True: an empty text means the default. A number that is empty is a mistake."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of the table."""

    field: str
    rule: Rule
    default: object
    default_words: str
    meaning: str

    @property
    def name(self) -> str:
        """As it is written in the environment."""
        return f"MURMUR_{self.field.upper()}"

    def read(self, environ: Mapping[str, str]) -> object:
        """Its value in ``environ``; StoreConfigurationError names the variable and its rule."""
        text = environ.get(self.name)
        if text is None or (self.rule.may_be_empty and not text.strip()):
            return self.default
        try:
            return self.rule.read(text.strip())
        except ValueError:
            raise StoreConfigurationError(
                f"{self.name} is {ascii(text)[:60]}, but must be {self.rule.words}; "
                f"without it, it is {self.default_words}"
            ) from None


def _whole(least: int, most: int) -> Rule:
    def read(text: str) -> int:
        # int() would take "1_000", " 5" and digits of every script.
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return Rule(f"a whole number from {least} to {most}", read)


def _decimal(least: float, most: float) -> Rule:
    def read(text: str) -> float:
        if not _DECIMAL.fullmatch(text) or not least <= float(text) <= most:
            raise ValueError
        return float(text)

    return Rule(f"a number from {least:g} to {most:g}, such as 2 or 2.5", read)


def _read_text(text: str) -> str:
    if "\0" in text:
        raise ValueError
    return text


def _read_path(text: str) -> Path:
    return Path(_read_text(text))


def _read_prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError
    return text


def _read_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise ValueError
    return text.lower()


def _read_switch(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError
    return text.lower() in _TRUE


_URL = Rule("a URL", _read_text, may_be_empty=True)
_FOLDER = Rule("a folder", _read_path, may_be_empty=True)
_PREFIX_RULE = Rule(
    "1 to 64 characters of A-Z a-z 0-9 . _ : - that begin with a letter or a digit", _read_prefix
)
_LEVEL = Rule(f"one of {', '.join(LOG_LEVELS)}", _read_level)
_SWITCH = Rule("0 or 1", _read_switch, may_be_empty=True)

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "url",
        _URL,
        None,
        "the embedded server",
        "Where the runs are: `redis://`, `rediss://`, `unix://`, `embedded:` or `memory:`.",
    ),
    Variable(
        "data_dir",
        _FOLDER,
        None,
        "the user's data folder",
        "The embedded server's folder: its data, its log, its socket.",
    ),
    Variable(
        "key_prefix",
        _PREFIX_RULE,
        DEFAULT_KEY_PREFIX,
        DEFAULT_KEY_PREFIX,
        "What every key on the server begins with.",
    ),
    Variable(
        "partitions",
        _whole(1, 256),
        1,
        "1",
        "Over how many partitions the runs are spread; the same in every program.",
    ),
    Variable(
        "ttl_seconds",
        _whole(0, TEN_YEARS_SECONDS),
        3600,
        "3600",
        "How long an ended run is kept; 0 keeps it for ever.",
    ),
    Variable(
        "live_ttl_seconds",
        _whole(60, TEN_YEARS_SECONDS),
        30 * DAY_SECONDS,
        str(30 * DAY_SECONDS),
        "How long a run that has not ended may be silent before it is failed.",
    ),
    Variable(
        "concurrency",
        _whole(1, 10_000),
        10,
        "10",
        "How many runs one worker process executes at the same time.",
    ),
    Variable(
        "lease_seconds",
        _decimal(1, 3600),
        15.0,
        "15",
        "How long a worker may be silent before its runs are taken over.",
    ),
    Variable(
        "drain_seconds",
        _decimal(0, DAY_SECONDS),
        30.0,
        "30",
        "How long a worker that is told to stop waits for its runs before it hands them back.",
    ),
    Variable(
        "log_level",
        _LEVEL,
        "info",
        "info",
        "What the command line's workers log to stderr.",
    ),
    Variable(
        "debug",
        _SWITCH,
        False,
        "0",
        "1 shows the traceback behind an error of the command line.",
    ),
)
"""In the order of the documented table."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of all variables; what the environment does not say has its default."""

    url: str | None = None
    data_dir: Path | None = None
    key_prefix: str = DEFAULT_KEY_PREFIX
    partitions: int = 1
    ttl_seconds: int = 3600
    live_ttl_seconds: int = 30 * DAY_SECONDS
    concurrency: int = 10
    lease_seconds: float = 15.0
    drain_seconds: float = 30.0
    log_level: str = "info"
    debug: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read all variables.

        Raises:
            StoreConfigurationError: a value breaks its rule; the text names both.
        """
        values: dict[str, Any] = {row.field: row.read(environ) for row in VARIABLES}
        return cls(**values)


def settings_table() -> str:
    """The variables as a Markdown table, as it stands in the README."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for row in VARIABLES:
        default = row.default_words if row.default is None else f"`{row.default_words}`"
        lines.append(f"| `{row.name}` | {default} | {row.meaning} |")
    return "\n".join(lines) + "\n"
