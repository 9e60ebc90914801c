"""The queue as a worker sees it: claim, heartbeat, reclaim, and waiting for a wake-up token."""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from murmur_streams.core.errors import LeaseLostError, RunNotFoundError
from murmur_streams.stores.redis.connections import NeverSentError
from murmur_streams.stores.redis.failures import Fate, clear_error, code_of, fate_of
from murmur_streams.stores.redis.store import RedisRunStore

logger = logging.getLogger("murmur_streams.queue")

WAKE_GROUP = "workers"
WAKE_CONSUMER = "any"
"""One name for all workers: tokens are hints without acks, and a name a worker would leak."""
HEARTBEAT_PAGE = 100
RECLAIM_PAGE = 20
_FIELDS_PER_CLAIM = 6


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that a worker holds."""

    run_id: str
    target: str
    attempt: int
    token: str
    """The fencing token: every write of this execution carries it."""
    version: int
    input_json: str | None


class Queue:
    """The waiting work of one store, for workers.

    Args:
        store: whose runs.
        lease_seconds: how long a claim holds without a heartbeat, by the server's clock.
    """

    def __init__(self, store: RedisRunStore, lease_seconds: float) -> None:
        self._store = store
        self._server = store.server
        self._keys = store.keys
        self._lease_ms = round(lease_seconds * 1000)

    async def prepare(self, targets: Sequence[str]) -> None:
        """Make the wake streams and their group, where they are missing."""
        for key in self._wake_keys(targets):
            try:
                await self._server.read("XGROUP", "CREATE", key, WAKE_GROUP, "0", "MKSTREAM")
            except Exception as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def claim(self, worker: str, targets: Sequence[str], count: int) -> list[Claim]:
        """Take up to ``count`` waiting runs and their leases, the oldest of each target first.

        A reply that is lost leaves the runs claimed by nobody who knows; they are handed on when
        their leases run out.
        """
        claims: list[Claim] = []
        partitions = list(self._keys.all_partitions)
        # Another order each time, so that no partition waits behind a full one for ever.
        random.shuffle(partitions)
        for partition in partitions:
            if len(claims) < count:
                claims += await self._claim(worker, targets, count - len(claims), partition)
        return claims

    async def _claim(
        self, worker: str, targets: Sequence[str], count: int, partition: int
    ) -> list[Claim]:
        tokens = [secrets.token_hex(8) for _ in range(count)]
        answer = await self._server.single_script(
            "claim",
            [self._keys.base(partition), self._keys.feed(partition)],
            [
                worker,
                self._lease_ms,
                self._store.durations.feed_max_entries,
                count,
                len(targets),
                *targets,
                *tokens,
            ],
        )
        flat = answer[1:]
        claims = [
            Claim(run_id, target, int(attempt), token, int(version), given or None)
            for run_id, target, attempt, token, version, given in zip(
                *(flat[place::_FIELDS_PER_CLAIM] for place in range(_FIELDS_PER_CLAIM)),
                strict=True,
            )
        ]
        for claim in claims:
            if claim.attempt == 0:
                _tell_damaged(claim.run_id)
        return [claim for claim in claims if claim.attempt]

    async def heartbeat(self, claims: Sequence[Claim]) -> list[Claim]:
        """Move the leases on; the claims that are over."""
        over: set[str] = set()
        for partition in self._keys.all_partitions:
            held = [claim for claim in claims if self._keys.partition(claim.run_id) == partition]
            for first in range(0, len(held), HEARTBEAT_PAGE):
                over |= await self._beat(held[first : first + HEARTBEAT_PAGE], partition)
        return [claim for claim in claims if claim.token in over]

    async def _beat(self, claims: Sequence[Claim], partition: int) -> set[str]:
        pairs = [part for claim in claims for part in (claim.run_id, claim.token)]
        answer = await self._server.idempotent_script(
            "heartbeat",
            [self._keys.base(partition)],
            [self._lease_ms, self._store.durations.live_ttl_ms, len(claims), *pairs],
        )
        return set(answer[1:])

    async def reclaim(self) -> list[str]:
        """Queue the runs again whose lease has run out, all of them; their ids."""
        queued: list[str] = []
        for partition in self._keys.all_partitions:
            while page := await self._reclaim(partition):
                for run_id, fate in zip(page[::2], page[1::2], strict=True):
                    if fate == "queued":
                        queued.append(run_id)
                    else:
                        _tell_damaged(run_id)
        return queued

    async def _reclaim(self, partition: int) -> Sequence[str]:
        answer = await self._server.idempotent_script(
            "reclaim",
            [self._keys.base(partition), self._keys.feed(partition)],
            [RECLAIM_PAGE, self._store.durations.feed_max_entries],
        )
        return answer[1:]

    async def release(self, claim: Claim, reason: str) -> None:
        """Hand a claimed run back; nothing happens when the claim is over."""
        try:
            await self._store.release(claim.run_id, claim.token, reason)
        except (LeaseLostError, RunNotFoundError):
            logger.debug("run %s was no longer ours to hand back", claim.run_id)

    async def recover(self, attempt: int) -> None:
        """Wait before a further try after a failure, longer each time, to two seconds."""
        await self._server.recover(attempt)

    async def wait(self, targets: Sequence[str], seconds: float) -> None:
        """Wait for a wake-up token, at most ``seconds``; returning early is harmless."""
        keys = self._wake_keys(targets)
        try:
            await self._server.blocking(
                "XREADGROUP", "GROUP", WAKE_GROUP, WAKE_CONSUMER, "COUNT", 1,
                "BLOCK", max(1, round(seconds * 1000)), "NOACK",
                "STREAMS", *keys, *(">" for _ in keys),
                seconds=seconds,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001  # every error of the driver is judged here
            if code_of(error) in {"NOGROUP", "UNBLOCKED", "WRONGTYPE"}:
                await self.prepare(targets)
                return
            reason = error.__cause__ if isinstance(error, NeverSentError) else error
            if reason is None:
                raise self._server.unavailable(error) from None
            if fate_of(reason) is Fate.REFUSED:
                raise clear_error(reason, self._server.where) from None
            await self._server.recover(0)

    def _wake_keys(self, targets: Sequence[str]) -> list[str]:
        return [
            self._keys.wake(target, partition)
            for partition in self._keys.all_partitions
            for target in targets
        ]


def _tell_damaged(run_id: str) -> None:
    logger.error(
        "run %s is damaged and was taken out of the queue: its hash or journal was changed by "
        "hand; `murmur-streams audit %s` says how",
        run_id,
        run_id,
    )
