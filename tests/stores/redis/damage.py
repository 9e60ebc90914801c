"""Damage to a run's hash and index rows, as a slip of the hand in redis-cli would do it."""

from __future__ import annotations

from typing import Any

from redis import Redis

from murmur_streams.core.model.run import listing_key
from murmur_streams.core.model.states import RunState
from murmur_streams.stores.redis.keys import Keys
from tests.stores.redis.steps import Damage


def damage(admin: Redis, keys: Keys, run_id: str, what: Damage) -> None:
    """Do it."""
    client: Any = admin
    key = keys.run(run_id)
    match what:
        case "hash gone":
            client.delete(key)
        case "state":
            client.hset(key, "state", "failed")
        case "version":
            client.hset(key, mapping={"version": 1, "last_ms": 1, "seal": 1})
        case "stranger":
            client.hset(key, "nobody_knows", "x")
        case "tenant gone":
            client.hdel(key, "tenant")
        case _:
            _damage_rows(client, keys, run_id, what)


def _damage_rows(client: Any, keys: Keys, run_id: str, what: Damage) -> None:
    created_ms, target, tenant = client.hmget(keys.run(run_id), "created_ms", "target", "tenant")
    member, target = listing_key(int(created_ms), run_id), target.decode()
    partition = keys.partition(run_id)
    match what:
        case "queue gone":
            client.zrem(keys.queue(target, partition), run_id)
        case "lease gone":
            client.zrem(keys.leases(partition), run_id)
        case "index gone":
            client.zrem(keys.index(partition), member)
            client.zrem(keys.index_target(target, partition), member)
            client.zrem(keys.index_tenant((tenant or b"").decode(), partition), member)
        case _:
            for state in RunState:
                client.zadd(keys.index_state(state, partition), {member: 0})
