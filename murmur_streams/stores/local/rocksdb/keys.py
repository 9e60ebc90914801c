"""Every key of the store; nothing else forms one.

====================================  ==========================================
``m`` name                            meta: ``schema``, ``feed``
``r`` run                             the run, but for what every write changes
``v`` run                             version and last_ms
``j`` run NUL seq                     an entry of the journal
``p`` run NUL kind                    a payload
``a`` listing key                     the run in the listing of all: what filters ask of it
``s`` state NUL listing key           ... of its state
``t`` target NUL listing key          ... of its target
``n`` tenant NUL listing key          ... of its tenant
``d`` moment's letter, ms, run        a due moment
``q`` target NUL range, score, run    a position in a queue
``f`` n                               an entry of the feed
``i`` space NUL key                   an item
====================================  ==========================================

Numbers are 8 bytes, the highest first, so that keys sort by them; those that may be negative are
moved up by half the range.
"""

from __future__ import annotations

import struct

from murmur_streams.core.model.run import PayloadKind, Run, RunFilter, listing_key
from murmur_streams.stores.local.engine.database import Due, Space, Stored

SCHEMA = b"mschema"
FEED = b"mfeed"

ALL_RUNS = b"a"

INDEXES = (b"a", b"d", b"n", b"q", b"s", b"t")
"""The prefix of the keys by which a run is found."""

_NUMBER = struct.Struct(">Q")
_pack = _NUMBER.pack
_HALF = 1 << 63
_MOST = (1 << 64) - 1
_DUE_LETTERS = {Due.EXPIRE: b"e", Due.OVERDUE: b"o", Due.LEASE: b"l"}
_MOMENTS = tuple((b"d" + letter, what.value) for what, letter in _DUE_LETTERS.items())


def run(run_id: str) -> bytes:
    """The key of the run."""
    return b"r" + run_id.encode()


def version(run_id: str) -> bytes:
    """Where its version and last_ms are stored."""
    return b"v" + run_id.encode()


def journal(run_id: str) -> bytes:
    """The prefix of its journal's keys; a seq follows."""
    return b"j" + run_id.encode() + b"\0"


def numbered(prefix: bytes, number: int) -> bytes:
    """The key of an entry of a journal or of the feed: ``number`` is 0 or more."""
    try:
        return prefix + _pack(number)
    except struct.error:
        # No row lies so far out: the end of the range is as good.
        return prefix + _pack(0 if number < 0 else _MOST)


def number_at(key: bytes, start: int) -> int:
    """Read the number that begins at an offset of a key of ``numbered``."""
    return int.from_bytes(key[start : start + 8], "big")


def payload(run_id: str, kind: PayloadKind) -> bytes:
    """The key of one of its payloads."""
    return b"p" + run_id.encode() + b"\0" + kind.encode()


def feed(n: int) -> bytes:
    """Where entry ``n`` of the feed is stored."""
    return numbered(b"f", n)


def item(space: Space, key: str) -> bytes:
    """The key of an item."""
    return b"i" + space.encode() + b"\0" + key.encode(errors="surrogatepass")


def item_name(key: bytes) -> str:
    """The item's own key, of one of ``item``."""
    return key[key.index(b"\0") + 1 :].decode(errors="surrogatepass")


def due(what: Due) -> bytes:
    """The prefix of the keys of a kind of moment; a moment and a run follow."""
    return b"d" + _DUE_LETTERS[what]


def queue(target: str, *, is_ready: bool) -> bytes:
    """The prefix of the keys of a range of a queue; a score and a run follow."""
    return b"q" + target.encode() + (b"\0r" if is_ready else b"\0w")


def scored(prefix: bytes, score: int) -> bytes:
    """The first key of ``due`` or ``queue`` that a score may have."""
    return numbered(prefix, score + _HALF)


def score_and_run(key: bytes, prefix: bytes) -> tuple[int, str]:
    """Read a key of ``due`` or ``queue``."""
    start = len(prefix)
    return number_at(key, start) - _HALF, key[start + 8 :].decode()


def listing(wanted: RunFilter) -> bytes:
    """The prefix of the keys of the index that a listing walks; a listing key follows."""
    # Of several filters the one that most likely lets the fewest through.
    for letter, name in ((b"n", wanted.tenant), (b"t", wanted.target), (b"s", wanted.state)):
        if name is not None:
            return letter + name.encode() + b"\0"
    return ALL_RUNS


def listed_run(key: bytes) -> str:
    """The run id of a key of ``listing``."""
    return key[key.index(b":") + 1 :].decode()


def after_all(prefix: bytes) -> bytes:
    """The first key after all that begin with ``prefix``."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def listings(run: Run) -> list[bytes]:
    """Every key by which a listing finds the run."""
    position = listing_key(run.created_ms, run.run_id).encode()
    found = [ALL_RUNS + position]
    for letter, name in ((b"s", run.state), (b"t", run.target), (b"n", run.tenant)):
        if name is not None:
            found.append(letter + name.encode() + b"\0" + position)
    return found


def positions(stored: Stored) -> dict[bytes, bytes]:
    """Every key by which a moment or a queue finds the run -> what that range's keys begin with."""
    run_id = stored.run.run_id.encode()
    found: dict[bytes, bytes] = {}
    for prefix, name in _MOMENTS:
        moment: int | None = getattr(stored, name)
        if moment is not None:
            found[scored(prefix, moment) + run_id] = prefix
    if stored.queue is not None:
        prefix = queue(stored.run.target, is_ready=stored.queue.is_ready)
        found[scored(prefix, stored.queue.score) + run_id] = prefix
    return found


def is_of(key: bytes, run_id: bytes) -> bool:
    """Whether a key of ``INDEXES`` leads to the run."""
    if not key.endswith(run_id):
        return False
    start = len(key) - len(run_id)
    if key[:1] == b"d":
        return start == 2 + _NUMBER.size
    if key[:1] == b"q":
        return start == key.find(b"\0") + 2 + _NUMBER.size
    return start == key.find(b":") + 1
