"""Claims runs from partitions in turn, and reads the replies of the claim script."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from murmur_streams.core.model.errors import StoreError
from murmur_streams.core.model.work import Claim, Claimed, TargetRule
from murmur_streams.core.rules.executions import Answer
from murmur_streams.stores.redis.durations import Durations
from murmur_streams.stores.redis.keys import RECORDED_COUNTS
from murmur_streams.stores.redis.replies import read_claim, read_groups
from murmur_streams.stores.redis.server import Server
from murmur_streams.stores.redis.side_by_side import PATIENCE_SECONDS, SideBySide

logger = logging.getLogger("murmur_streams.queue")


Release = Callable[[Claim, str], Coroutine[Any, Any, None]]


class Claims:
    """The claims of one queue.

    Args:
        server: holds the runs.
        durations: the store's.
        lease_ms: how long a claim holds without a heartbeat.
        release: hands a run back.
    """

    def __init__(
        self, server: Server, durations: Durations, lease_ms: int, release: Release
    ) -> None:
        self._server = server
        self._keys = server.keys
        self._durations = durations
        self._lease_ms = lease_ms
        self._release = release
        patience = PATIENCE_SECONDS if server.is_cluster else None
        self._claiming = SideBySide[Sequence[Claim]](patience)
        self._due: dict[int, float] = {}
        """Partition -> when its next delayed run is due, by the loop's clock."""
        self._unserved: dict[int, set[str]] = {}

    def due_partitions(self) -> list[int]:
        """Those whose next delayed run is due."""
        now = asyncio.get_running_loop().time()
        return [partition for partition, due in self._due.items() if due <= now]

    async def claim(
        self,
        partitions: Sequence[int],
        worker: str,
        targets: Sequence[TargetRule],
        count: int,
        host: str,
    ) -> Claimed:
        """Claim from partitions in turn; a server that is slow or gone delays no other one.

        Args:
            partitions: in this order.
            worker: as in ``WorkQueue.claim``, and so are the others.
            targets: in the order in which they are served.
            count: how many at most.
            host: where the worker runs.

        Raises:
            StoreError: no server has answered.
        """
        claims = [claim for late in self._claiming.late() for claim in late]
        for partition in partitions:
            # Also of a server that does not answer: a due time of the past would let the worker
            # claim again without a pause until it does.
            self._due.pop(partition, None)
        failed, is_answered = None, bool(claims)
        for node, own in self._by_node(partitions):
            if len(claims) >= count:
                break
            room = count - len(claims)
            ask = functools.partial(self._claim_on, own, worker, targets, room, host)
            try:
                found = await self._claiming.ask(node, ask)
            except StoreError as error:
                logger.debug("no claims from %s: %s", node, error)
                failed = failed or error
            else:
                is_answered = True
                claims += found or ()
        if failed is not None and not is_answered:
            raise failed
        for claim in claims[count:]:
            # It came late, and its slot is taken: another worker may start it now.
            self._server.start(self._release(claim, "no slot"), "release a late claim")
        now = asyncio.get_running_loop().time()
        due = min(self._due.values(), default=None)
        return Claimed(claims[:count], None if due is None else max(0.0, due - now))

    def _by_node(self, partitions: Sequence[int]) -> list[tuple[str, list[int]]]:
        """The partitions by the server that has them, in their order."""
        found: dict[str, list[int]] = {}
        for partition in partitions:
            found.setdefault(self._server.nodes.name_of(partition), []).append(partition)
        return [*found.items()]

    async def _claim_on(
        self,
        partitions: Sequence[int],
        worker: str,
        targets: Sequence[TargetRule],
        count: int,
        host: str,
    ) -> list[Claim]:
        """Claim from partitions of one server in turn, at most ``count`` runs.

        A claim is sent once and not retried. If its reply is lost, the runs are claimed by a worker
        that does not know it; a retry could not distinguish these claims from new ones. So they
        wait until their leases run out, and then go back to the queue.
        """
        claims: list[Claim] = []
        for partition in partitions:
            if len(claims) >= count:
                break
            arguments = self.arguments(worker, targets, count - len(claims), host)
            keys = self._keys.base_and_feed(partition)
            try:
                answer = await self._server.single_script("claim", keys, arguments)
            except StoreError:
                if not claims:
                    raise
                break  # These are ours; the worker gets the error of its next claim.
            claims += self._note(self.read(answer, partition), partition)
        return claims

    def _note(self, found: Claimed, partition: int) -> Sequence[Claim]:
        """Note when the partition's next run is due; its claims."""
        self._due.pop(partition, None)
        if found.next_due_seconds is not None:
            self._due[partition] = asyncio.get_running_loop().time() + found.next_due_seconds
        return found.claims

    def arguments(
        self, worker: str, targets: Sequence[TargetRule], count: int, host: str
    ) -> list[str | int]:
        """The ARGV of a claim."""
        durations = self._durations
        rules = [part for rule in targets for part in (rule.name, rule.max_attempts)]
        tokens = [secrets.token_hex(8) for _ in range(count)]
        return [
            *(worker, host, self._lease_ms, durations.feed_max_entries, durations.ttl_ms),
            *(count, len(targets), RECORDED_COUNTS, *rules, *tokens),
        ]

    def read(self, answer: Answer, partition: int) -> Claimed:
        """Read the reply of a partition, and log what was not claimed."""
        claims, unserved = list[Claim](), set[str]()
        for kind, fields in read_groups(answer[3:]):
            if kind == "claimed":
                claims.append(read_claim(fields))
                self._keys.locate(fields["run_id"], partition)
            elif kind == "damaged":
                log_damaged(fields["run_id"])
            elif kind == "unserved":
                unserved.add(fields["target"])
            else:
                logger.info("run %s was not started: %s", fields["run_id"], fields["reason"])
        self._log_unserved(partition, unserved)
        more, next_due_ms = answer[1] == "1", int(answer[2])
        if more:
            return Claimed(claims, 0.0)
        return Claimed(claims, None if next_due_ms < 0 else next_due_ms / 1000)

    def _log_unserved(self, partition: int, targets: set[str]) -> None:
        """Log a target that cannot be served, once until it was served again."""
        for target in sorted(targets - self._unserved.get(partition, set())):
            logger.error(
                "no run of %s in partition %d can be taken: the type of %s or of %s was changed "
                "by hand; `redis-cli TYPE KEY` names it, and a queue that is deleted is restored",
                *(target, partition, self._keys.queue(target, partition)),
                self._keys.paused(partition),
            )
        self._unserved[partition] = targets


def log_damaged(run_id: str) -> None:
    """Log that a run was taken out of the queue because it cannot be read."""
    logger.error(
        "run %s is damaged and was taken out of the queue: one of its keys was changed by "
        "hand; `murmur-streams audit %s` says how, `murmur-streams rebuild %s` mends it",
        *(run_id, run_id, run_id),
    )
