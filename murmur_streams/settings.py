"""Every ``MURMUR_*`` variable of the environment: its name, rule, default and meaning, once."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.model.limits import TEN_YEARS_SECONDS
from murmur_streams.core.redaction import redacted

T = TypeVar("T")

DAY_SECONDS = 86_400

_TEXT = re.compile(r"[^\0]*")
_TOKEN = re.compile(r"[!-~]*")
_WHOLE = re.compile(r"[0-9]{1,12}")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
KEY_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
# As browsers send it: in lower case, without a path, without the default port of the scheme.
_ORIGIN = re.compile(r"(http|https)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS = {("http", ":80"), ("https", ":443")}
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class EventLoop(StrEnum):
    """The event loop of a worker; ``auto`` is uvloop where it is installed."""

    AUTO = "auto"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


@dataclass(frozen=True, slots=True)
class Rule:
    """The texts that a variable accepts: for people, and as a function that raises ValueError."""

    description: str
    read: Callable[[str], object]
    may_be_empty: bool = False
    """True: an empty text means the default. A number that is empty is a mistake."""
    shown: Callable[[str], str] | None = None
    """The text as errors and dumps may show it; None: the text itself."""
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of the table."""

    field: str
    rule: Rule
    default: object
    default_text: str
    meaning: str

    @property
    def name(self) -> str:
        """The name in the environment."""
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
                f"{self.name} is {ascii(self.shown(text))[:60]}, but must be "
                f"{self.rule.description}; without it, it is {self.default_text}"
            ) from None

    def shown(self, text: str) -> str:
        """A value of it without its secrets."""
        return text if self.rule.shown is None else self.rule.shown(text)


def _number(kind: type[int | float], pattern: re.Pattern[str], least: float, most: float) -> Rule:
    def read(text: str) -> float:
        # int() and float() alone would accept "1_000", " 5", "1e3" and digits of every script.
        if not pattern.fullmatch(text) or not least <= kind(text) <= most:
            raise ValueError
        return kind(text)

    is_whole = kind is int
    rule = f"a {'whole ' if is_whole else ''}number from {least} to {most}"
    rule += "" if is_whole else ", such as 2 or 2.5"
    return Rule(rule, read, least=least, most=most)


_whole = functools.partial(_number, int, _WHOLE)
_decimal = functools.partial(_number, float, _DECIMAL)


def _one_of(*choices: str) -> Rule:
    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError
        return text.lower()

    return Rule(f"one of {', '.join(choices)}", read)


def _like(pattern: re.Pattern[str], kind: Callable[[str], object] = str) -> Callable[[str], object]:
    def read(text: str) -> object:
        if not pattern.fullmatch(text):
            raise ValueError
        return kind(text)

    return read


def _read_switch(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def check_origin(text: str) -> str:
    """Return an origin as browsers send it; anything else is a ValueError."""
    found = _ORIGIN.fullmatch(text)
    if found is None or (found[1], found[3]) in _DEFAULT_PORTS:
        raise ValueError(f"{ascii(text)[:60]} must be {_ORIGIN_RULE}")
    return text


def check_root_path(text: str) -> str:
    """Return a path without a slash at its end; anything else is a ValueError."""
    if not _ROOT_PATH.fullmatch(text):
        raise ValueError(f"{ascii(text)[:60]} must be {_ROOT_PATH_RULE}")
    return text


def _read_origins(text: str) -> tuple[str, ...]:
    return tuple(check_origin(origin.strip()) for origin in text.split(","))


_ORIGIN_RULE = "an origin such as https://app.example.com, exact and in lower case"
_ROOT_PATH_RULE = "a path such as /runs-api, without a slash at its end"
_ORIGINS = Rule(f"{_ORIGIN_RULE}; several with commas between them", _read_origins, True)
_ROOT = Rule(_ROOT_PATH_RULE, check_root_path, may_be_empty=True)
_URL = Rule("a URL", _like(_TEXT), may_be_empty=True, shown=redacted)
_SECRET = Rule("text without spaces", _like(_TOKEN), may_be_empty=True, shown=lambda _: "***")
_FOLDER = Rule("a folder", _like(_TEXT, Path), may_be_empty=True)
_PREFIX = Rule(
    "1 to 64 characters of A-Z a-z 0-9 . _ : - that begin with a letter or a digit",
    _like(KEY_PREFIX),
)
_FILE = Rule("a file", _like(_TEXT, Path), may_be_empty=True)
_ADDRESS = Rule("a name or an address of this machine", _like(_TEXT), may_be_empty=True)
_SWITCH = Rule("0 or 1", _read_switch, may_be_empty=True)
_PORT = _whole(0, 65_535)


def _default_text(default: object) -> str:
    if default is None or default in {"", ()}:
        return "none"
    return f"{default:g}" if isinstance(default, bool | float) else str(default)


def _setting(default: T, rule: Rule, meaning: str, default_text: str | None = None) -> T:
    """A field of Settings; ``default_text`` is for a default that is not a value to type."""
    default_text = default_text or _default_text(default)
    about = {"rule": rule, "meaning": meaning, "default_text": default_text}
    return field(default=default, repr=rule.shown is None, metadata=about)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of all variables, in the order of the documented table."""

    url: str | None = _setting(
        None,
        _URL,
        "The store of the runs: `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, "
        "`redis+cluster://`, `embedded:`, `sqlite:` or `rocksdb:`.",
        "the embedded server",
    )
    data_dir: Path | None = _setting(
        None,
        _FOLDER,
        "The embedded server's folder: its data, its log, its socket.",
        "the user's data folder",
    )
    key_prefix: str = _setting("murmur:runs", _PREFIX, "The first part of every key on the server.")
    partitions: int | None = _setting(
        None, _whole(1, 256), "How many partitions; the same in all programs.", "1; on a cluster 16"
    )
    durability: str = _setting(
        "primary", _one_of("primary", "replicated"), "Whether a write to Redis waits for replicas."
    )
    read_only: bool = _setting(False, _SWITCH, "1 opens Redis for a user that may only read.")
    ttl_seconds: int = _setting(
        3600, _whole(0, TEN_YEARS_SECONDS), "How long an ended run is kept; 0 keeps it for ever."
    )
    live_ttl_seconds: int = _setting(
        30 * DAY_SECONDS,
        _whole(60, TEN_YEARS_SECONDS),
        "How long a run that has not ended may be silent before it is failed.",
    )
    concurrency: int = _setting(
        10, _whole(1, 10_000), "How many runs one worker process executes at the same time."
    )
    processes: int = _setting(
        1, _whole(1, 256), "How many worker processes one `worker` command runs."
    )
    loop: str = _setting(
        "auto",
        _one_of(*EventLoop),
        "The event loop of a worker: `asyncio`, `uvloop`, or `auto`: uvloop where it is installed.",
    )
    lease_seconds: float = _setting(
        15.0, _decimal(1, 3600), "How long a worker may be silent before its runs are taken over."
    )
    drain_seconds: float = _setting(
        30.0,
        _decimal(0, DAY_SECONDS),
        "How long a worker that is stopping waits for its runs before it hands them back.",
    )
    log_level: str = _setting(
        "info",
        _one_of("debug", "info", "warning", "error"),
        "The lowest level that workers and pods of the command line log to stderr.",
    )
    health_file: Path | None = _setting(
        None, _FILE, "A file that a worker touches at each heartbeat, and removes at its end."
    )
    health_port: int | None = _setting(
        None, _PORT, "Where a worker answers `GET /livez` and `/readyz`; 0 takes a free port."
    )
    health_host: str = _setting(
        "127.0.0.1", _ADDRESS, "The address of that port; `0.0.0.0` answers other machines, too."
    )
    host: str = _setting(
        "127.0.0.1",
        _ADDRESS,
        "The address that `serve` listens on; one that other machines reach needs a tokens file.",
    )
    port: int = _setting(8421, _PORT, "The port of `serve`; 0 takes a free one.")
    tokens_file: Path | None = _setting(
        None, _FILE, "The tokens that `serve` accepts; `murmur-streams token` draws them."
    )
    ticket_secret_file: Path | None = _setting(
        None,
        _FILE,
        "The secret that signs stream tickets, 32 bytes or more; the same on every pod.",
        "drawn at the start",
    )
    cors_origins: tuple[str, ...] = _setting(
        (),
        _ORIGINS,
        "Origins whose pages may use `serve` from a browser, with commas between them.",
    )
    public_openapi: bool = _setting(
        False,
        _SWITCH,
        "1 lets `serve` answer `/openapi.json` without a token, even with a tokens file.",
    )
    root_path: str = _setting("", _ROOT, "The path under which a proxy shows `serve` to the world.")
    server: str | None = _setting(
        None, _URL, "The HTTP server that commands ask for runs, instead of a store."
    )
    token: str | None = _setting(None, _SECRET, "The token for that server.")
    token_file: Path | None = _setting(
        None, _FILE, "A file with the token, when MURMUR_TOKEN has none."
    )
    trust_env: bool = _setting(
        True,
        _SWITCH,
        "0 lets those commands ignore the environment's proxies and certificates (docs/http.md).",
    )
    debug: bool = _setting(
        False, _SWITCH, "1 shows the traceback behind an error of the command line."
    )

    def override(self, **options: object) -> Self:
        """These settings with the options of a command line that are not None over them."""
        given: dict[str, Any] = {
            name: value for name, value in options.items() if value is not None
        }
        return replace(self, **given)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read all variables.

        Raises:
            StoreConfigurationError: a value breaks its rule; the text names both.
        """
        values: dict[str, Any] = {row.field: row.read(environ) for row in VARIABLES}
        return cls(**values)


VARIABLES: tuple[Variable, ...] = tuple(
    Variable(each.name, default=each.default, **each.metadata) for each in fields(Settings)
)
"""The rows of the documented table."""
_BY_FIELD = {row.field: row for row in VARIABLES}


def variable(name: str) -> Variable:
    """The variable of a field of Settings."""
    return _BY_FIELD[name]
