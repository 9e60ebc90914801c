"""Every ``MURMUR_*`` variable of the environment: its name, rule, default and meaning, once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from murmur_streams.core.model.errors import StoreConfigurationError
from murmur_streams.core.redaction import redacted

DAY_SECONDS = 86_400
TEN_YEARS_SECONDS = 3_650 * DAY_SECONDS
DEFAULT_KEY_PREFIX = "murmur:runs"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOOPS = ("auto", "asyncio", "uvloop")

_WHOLE = re.compile(r"[0-9]{1,12}")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
KEY_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
# As browsers send it: in lower case, no path, no port that is the scheme's own.
_ORIGIN = re.compile(r"(http|https)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_OWN_PORTS = {("http", ":80"), ("https", ":443")}
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What a variable's text may be, in words and as a function that raises ValueError."""

    words: str
    read: Callable[[str], object]
    may_be_empty: bool = False
    """True: an empty text means the default. A number that is empty is a mistake."""
    shown: Callable[[str], str] = lambda text: text
    """The text as errors and dumps may show it."""


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
            shown = ascii(self.rule.shown(text))[:60]
            raise StoreConfigurationError(
                f"{self.name} is {shown}, but must be {self.rule.words}; "
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


def _read_token(text: str) -> str:
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError
    return text


def _read_path(text: str) -> Path:
    return Path(_read_text(text))


def _read_prefix(text: str) -> str:
    if not KEY_PREFIX.fullmatch(text):
        raise ValueError
    return text


def _one_of(words: tuple[str, ...]) -> Rule:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Rule(f"one of {', '.join(words)}", read)


def _read_switch(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def check_origin(text: str) -> str:
    """Return what is an origin as browsers send it, else raise ValueError."""
    found = _ORIGIN.fullmatch(text)
    if found is None or (found[1], found[3]) in _OWN_PORTS:
        raise ValueError(f"{ascii(text)[:60]} must be {ORIGIN_WORDS}")
    return text


def check_root_path(text: str) -> str:
    """Return what is a path without a slash at its end, else raise ValueError."""
    if not _ROOT_PATH.fullmatch(text):
        raise ValueError(f"{ascii(text)[:60]} must be {ROOT_PATH_WORDS}")
    return text


def _read_origins(text: str) -> tuple[str, ...]:
    return tuple(check_origin(origin.strip()) for origin in text.split(","))


ORIGIN_WORDS = "an origin such as https://app.example.com, exact and in lower case"
ROOT_PATH_WORDS = "a path such as /runs-api, without a slash at its end"
_ORIGINS = Rule(f"{ORIGIN_WORDS}; several with commas between them", _read_origins, True)
_ROOT = Rule(ROOT_PATH_WORDS, check_root_path, may_be_empty=True)
_URL = Rule("a URL", _read_text, may_be_empty=True, shown=redacted)
_TOKEN = Rule("text without spaces", _read_token, may_be_empty=True, shown=lambda _: "***")
_FOLDER = Rule("a folder", _read_path, may_be_empty=True)
_PREFIX_RULE = Rule(
    "1 to 64 characters of A-Z a-z 0-9 . _ : - that begin with a letter or a digit", _read_prefix
)
_FILE = Rule("a file", _read_path, may_be_empty=True)
_ADDRESS = Rule("a name or an address of this machine", _read_text, may_be_empty=True)
_SWITCH = Rule("0 or 1", _read_switch, may_be_empty=True)

DATA_DIR = Variable(
    "data_dir",
    _FOLDER,
    None,
    "the user's data folder",
    "The embedded server's folder: its data, its log, its socket.",
)

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "url",
        _URL,
        None,
        "the embedded server",
        "Where the runs are: `redis://`, `rediss://`, `unix://`, `embedded:`, `sqlite:` or "
        "`rocksdb:`.",
    ),
    DATA_DIR,
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
        "processes",
        _whole(1, 256),
        1,
        "1",
        "How many worker processes one `worker` command keeps.",
    ),
    Variable(
        "loop",
        _one_of(LOOPS),
        "auto",
        "auto",
        "The event loop of a worker: `asyncio`, `uvloop`, or `auto`: uvloop where it is installed.",
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
        _one_of(LOG_LEVELS),
        "info",
        "info",
        "What the command line's workers log to stderr.",
    ),
    Variable(
        "health_file",
        _FILE,
        None,
        "none",
        "A file that a worker touches at each heartbeat, and removes at its end.",
    ),
    Variable(
        "health_port",
        _whole(0, 65_535),
        None,
        "none",
        "Where a worker answers `GET /livez` and `/readyz`; 0 takes a free port.",
    ),
    Variable(
        "health_host",
        _ADDRESS,
        "127.0.0.1",
        "127.0.0.1",
        "The address of that port; `0.0.0.0` answers other machines, too.",
    ),
    Variable(
        "host",
        _ADDRESS,
        "127.0.0.1",
        "127.0.0.1",
        "The address that `serve` listens on; one that others can reach needs a tokens file.",
    ),
    Variable("port", _whole(0, 65_535), 8421, "8421", "The port of `serve`; 0 takes a free one."),
    Variable(
        "tokens_file",
        _FILE,
        None,
        "none",
        "Who may use `serve`, by tokens; `murmur-streams token` draws them.",
    ),
    Variable(
        "ticket_secret_file",
        _FILE,
        None,
        "drawn at the start",
        "What stream tickets are signed with, 32 bytes or more; the same on every pod.",
    ),
    Variable(
        "cors_origins",
        _ORIGINS,
        (),
        "none",
        "Origins whose pages may use `serve` from a browser, with commas between them.",
    ),
    Variable(
        "public_openapi",
        _SWITCH,
        False,
        "0",
        "1 lets `serve` answer `/openapi.json` without a token, even with a tokens file.",
    ),
    Variable(
        "root_path",
        _ROOT,
        "",
        "none",
        "The path under which a proxy shows `serve` to the world.",
    ),
    Variable(
        "server",
        _URL,
        None,
        "none",
        "The HTTP server that commands ask for runs, in the place of a store.",
    ),
    Variable("token", _TOKEN, None, "none", "The token for that server."),
    Variable(
        "token_file",
        _FILE,
        None,
        "none",
        "A file with the token, when MURMUR_TOKEN has none.",
    ),
    Variable(
        "trust_env",
        _SWITCH,
        True,
        "1",
        "0 lets those commands ignore the environment's proxies and certificates (docs/http.md).",
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

    url: str | None = field(default=None, repr=False)
    data_dir: Path | None = None
    key_prefix: str = DEFAULT_KEY_PREFIX
    partitions: int = 1
    ttl_seconds: int = 3600
    live_ttl_seconds: int = 30 * DAY_SECONDS
    concurrency: int = 10
    processes: int = 1
    loop: str = "auto"
    lease_seconds: float = 15.0
    drain_seconds: float = 30.0
    log_level: str = "info"
    health_file: Path | None = None
    health_port: int | None = None
    health_host: str = "127.0.0.1"
    host: str = "127.0.0.1"
    port: int = 8421
    tokens_file: Path | None = None
    ticket_secret_file: Path | None = None
    cors_origins: tuple[str, ...] = ()
    public_openapi: bool = False
    root_path: str = ""
    server: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    trust_env: bool = True
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
        is_told = row.default is None or row.default in {"", ()}
        default = row.default_words if is_told else f"`{row.default_words}`"
        lines.append(f"| `{row.name}` | {default} | {row.meaning} |")
    return "\n".join(lines) + "\n"
