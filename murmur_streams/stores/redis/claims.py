"""Reads the replies of the claim script: claims, and what it left out."""

from __future__ import annotations

import logging

from murmur_streams.core.model.work import Claim, Claimed
from murmur_streams.core.rules.executions import Answer
from murmur_streams.stores.redis.keys import Keys
from murmur_streams.stores.redis.replies import read_claim, read_groups

logger = logging.getLogger("murmur_streams.queue")


class ClaimReplies:
    """Reads the replies of one queue's claims; remembers which targets it has logged."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._unserved: dict[int, set[str]] = {}

    def read(self, answer: Answer, partition: int) -> Claimed:
        """Read the reply of a partition, and log what was not claimed."""
        claims, unserved = list[Claim](), set[str]()
        for kind, fields in read_groups(answer[3:]):
            if kind == "claimed":
                claims.append(read_claim(fields))
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
