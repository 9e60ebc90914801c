"""The content of a partition on a real server, in a form that can be compared with the model."""

from __future__ import annotations

from dataclasses import fields as fields_of
from typing import Any

from redis import Redis

from murmur_streams.core.model.entries import EntryType, JournalEntry
from murmur_streams.core.model.run import (
    FOLDED_FIELDS,
    Run,
    listing_key,
    run_from_fields,
    run_to_fields,
)
from murmur_streams.core.model.states import TERMINAL_STATES
from murmur_streams.core.rules.evolve import fold
from murmur_streams.stores.redis.keys import Keys
from tests.server_choice import CLUSTER, chosen
from tests.stores.redis.model import Model, Record

TIMES = frozenset(
    {
        *("last_ms", "created_ms", "started_ms", "ended_ms", "due_ms", "deadline_ms"),
        *("cancel_requested", "cancel_delivered"),
    }
)
TIME_FIELDS = frozenset({"at", "due", "deadline", "seconds"})
DELAYED = 10**13
NOT_FOLDED = {"live_until", "expire_at", "letter"}
BIG_BYTES = 1024
PARTITIONS = 16 if chosen().startswith(CLUSTER) else 1
PARTITION = Keys("any", PARTITIONS).partition("a")
"""The one in which all runs of the test are."""
ENDED = {str(state) for state in TERMINAL_STATES}


class Partition:
    """Reads a partition by plain commands."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client: Any = client
        self._keys = keys

    def queue(self, target: str) -> list[str]:
        return [
            member.decode()
            for member in self._client.zrange(self._keys.queue(target, PARTITION), 0, -1)
        ]

    def ready(self, target: str) -> list[str]:
        """The runs of a queue that are due, in the order in which they are taken."""
        key = self._keys.queue(target, PARTITION)
        return [member.decode() for member in self._client.zrangebyscore(key, "-inf", DELAYED)]

    def run_hash(self, run_id: str) -> dict[str, str]:
        return _texts(self._client.hgetall(self._keys.run(run_id)))

    def journal(self, run_id: str) -> list[JournalEntry]:
        entries: list[JournalEntry] = []
        for entry_id, fields in self._client.xrange(self._keys.journal(run_id)):
            ms, seq = entry_id.decode().split("-")
            epoch = entries[0].epoch if entries else _texts(fields).get("epoch", "")
            entries.append(JournalEntry(run_id, epoch, int(ms), int(seq), _texts(fields)))
        return entries

    def oldest(self, run_id: str) -> int:
        """The seq of the oldest entry that is left; 0 without one."""
        first = self._client.xrange(self._keys.journal(run_id), count=1)
        return int(first[0][0].split(b"-")[1]) if first else 0

    def run_as_compared(self, run_id: str) -> dict[str, object] | None:
        """The run's hash and journal, times aside, once the fold has been found to be the hash."""
        stored = self.run_hash(run_id)
        if not stored:
            return None
        entries = self.journal(run_id)
        assert set(stored) <= FOLDED_FIELDS | NOT_FOLDED
        moments = [entry.ms for entry in entries]
        assert moments == sorted(moments)
        found = differences(run_from_fields(run_id, stored), fold(entries))
        assert found == {}
        return {
            "hash": without_times({name: text for name, text in stored.items() if text}),
            "journal": [(entry.seq, untimed(entry.fields)) for entry in entries],
        }

    def dump(self) -> dict[str, object]:
        """Every key; run hashes by name only, since they were compared command by command."""
        dumped: dict[str, object] = {}
        for name in self._client.scan_iter(count=1000):
            key = name.decode()
            if key.endswith(":meta"):
                continue  # Written by the first call after a FLUSHALL, whatever it is.
            row = key.split(":")[2]
            dumped[key] = getattr(self, f"_{row}", self._anything)(key)
        return dumped

    def _anything(self, key: str) -> object:
        kind = self._client.type(key).decode()
        if kind == "zset":
            return {member.decode() for member in self._client.zrange(key, 0, -1)}
        if kind == "string":
            return self._client.get(key).decode()
        return kind

    def _producer(self, key: str) -> object:
        numbered, _, earlier = self._client.get(key).decode().partition("\n\n")
        n, *answers = numbered.split("\n")
        return Record(int(n), untimed_answers(answers), untimed_answers(earlier.splitlines()))

    def _dead(self, key: str) -> object:
        if self._client.type(key) == b"set":
            return {member.decode() for member in self._client.smembers(key)}
        letters = [_texts(fields) for _, fields in self._client.xrange(key)]
        assert all(letter.pop("at") for letter in letters)
        return letters

    def _control(self, key: str) -> object:
        return [_texts(fields) for _, fields in self._client.xrange(key)]

    def _wake(self, key: str) -> object:
        return self._client.xlen(key)

    def _expiring(self, key: str) -> object:
        rows = self._client.zrange(key, 0, -1, withscores=True)
        return {member.decode(): int(score) for member, score in rows}

    def _journal(self, key: str) -> object:
        run_id = key.split(":", 3)[3]
        return [(entry.seq, untimed(entry.fields)) for entry in self.journal(run_id)]

    def _feed(self, key: str) -> object:
        entries = self._client.xrange(key)
        numbers = [int(entry_id.split(b"-")[1]) for entry_id, _ in entries]
        assert numbers == list(range(1, len(numbers) + 1)), "n is dense in the feed"
        found: list[object] = []
        for _, fields in entries:
            texts = _texts(fields)
            run_id, entry = texts.pop("run"), texts.pop("entry")
            found.append((run_id, texts.pop("target"), int(entry.split("-")[1]), untimed(texts)))
        return found


def expected_dump(
    model: Model, partition: Partition, keys: Keys, *, ttl_ms: int
) -> dict[str, object]:
    """The content that the partition should have; times in index members are the server's own."""
    dump: dict[str, object] = {}
    index: dict[str, set[str]] = {}
    expiring: dict[str, int] = {}
    for run_id, life in model.lives.items():
        stored = partition.run_hash(run_id)
        member = listing_key(int(stored["created_ms"]), run_id)
        whose, row = life.run.tenant, f"{life.run.target}:{member}"
        if whose is not None:
            index.setdefault(keys.index_tenant(whose, PARTITION), set()).add(member)
            row = f"{life.run.target}/{whose}:{member}"
        for key in (
            keys.index(PARTITION),
            keys.index_state(life.run.state, PARTITION),
            keys.index_target(life.run.target, PARTITION),
        ):
            index.setdefault(key, set()).add(member)
        if not life.run.state.is_terminal and stored["live_until"] != "0":
            index.setdefault(keys.overdue(PARTITION), set()).add(row)
        if life.run.state.is_terminal and ttl_ms:
            expiring[row] = int(stored["expire_at"])
        dump[keys.run(run_id)] = "hash"
        dump[keys.input(run_id)] = life.input
        dump[keys.result(run_id)] = life.result
        dump[keys.checkpoint(run_id)] = life.checkpoint
    for run_id, entries in (
        *model.tombstones.items(),
        *((run_id, life.entries) for run_id, life in model.lives.items()),
    ):
        remaining = since(entries, partition.oldest(run_id))
        dump[keys.journal(run_id)] = [(entry.seq, untimed(entry.fields)) for entry in remaining]
    dump |= {keys.producer(name, PARTITION): each for name, each in model.records.items()}
    dump |= index
    dump |= {keys.queue(target, PARTITION): members for target, members in model.queues.items()}
    # Workers of a cluster are woken by messages.
    wakes, controls = ({}, {}) if chosen().startswith(CLUSTER) else (model.wakes, model.controls)
    dump |= {keys.wake(target, PARTITION): count for target, count in wakes.items()}
    dump |= {keys.dead(target, PARTITION): letters for target, letters in model.dead.items()}
    dump[keys.dead_targets(PARTITION)] = set(model.dead)
    dump |= {keys.control(worker, PARTITION): untimed for worker, untimed in controls.items()}
    dump[keys.sweeper(PARTITION)] = model.sweeper
    dump[keys.expiring(PARTITION)] = expiring
    dump[keys.leases(PARTITION)] = set(model.leases)
    dump[keys.feed(PARTITION)] = [
        (run_id, target, seq, in_feed(fields)) for run_id, target, seq, fields in model.feed
    ]
    return {key: content for key, content in dump.items() if content not in (None, {}, set(), [])}


def model_as_compared(model: Model, run_id: str, oldest: int) -> dict[str, object] | None:
    """The model's ``Partition.run_as_compared``, from the oldest entry that is left."""
    life = model.lives.get(run_id)
    if life is None:
        return None
    return {
        "hash": without_times(run_to_fields(life.run)),
        "journal": [(entry.seq, untimed(entry.fields)) for entry in since(life.entries, oldest)],
    }


def since(entries: list[JournalEntry], oldest: int) -> list[JournalEntry]:
    """The entries from this seq on."""
    return [entry for entry in entries if entry.seq >= oldest]


def without_times(fields: dict[str, str]) -> dict[str, str]:
    """Hash fields with each time replaced by the fact that there is one."""
    hidden = TIMES | ({"progress_ms"} if fields["state"] in ENDED else set())
    return {
        name: "a time" if name in hidden else text
        for name, text in fields.items()
        if name not in NOT_FOLDED
    }


def untimed_answers(texts: list[str]) -> list[str]:
    """Answers of a call; how long to wait depends on the clock."""
    return ["WAIT" if text.startswith("WAIT ") else text for text in texts]


def untimed(fields: Any) -> dict[str, str]:
    """An entry's fields without its time; a snapshot's are those of a hash."""
    if fields["type"] == EntryType.SNAPSHOT and "big" not in fields:
        return without_times(fields)
    return {name: text for name, text in fields.items() if name not in TIME_FIELDS}


def in_feed(fields: Any) -> dict[str, str]:
    """An entry's fields as the feed has them: a big one by its type only."""
    size = sum(len(name.encode()) + len(text.encode()) for name, text in fields.items())
    if size > BIG_BYTES:
        return {"big": "1", "type": fields["type"]}
    # Every entry of the feed has the run's target; that of run.created is the same.
    return {name: text for name, text in untimed(fields).items() if name != "target"}


def differences(stored: Run, folded: Run | None) -> dict[str, tuple[object, object]]:
    """Where the hash is not the fold; progress that is newer in the hash is as designed."""
    skipped = {"progress_dirty"} | ({"progress"} if stored.progress_dirty else set())
    names = [field.name for field in fields_of(Run) if field.name not in skipped]
    return {
        name: (getattr(stored, name), getattr(folded, name, None))
        for name in names
        if getattr(stored, name) != getattr(folded, name, None)
    }


def _texts(raw: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): text.decode() for name, text in raw.items()}
