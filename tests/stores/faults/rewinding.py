"""A server that goes back to an earlier moment, as after a failover to a replica that lags."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis


@dataclass(frozen=True, slots=True)
class Moment:
    """All keys of a server as they were."""

    client: Redis
    dumps: dict[bytes, tuple[bytes, int]]

    async def come_back(self) -> None:
        """Set the server back, in one step; its connections, scripts and functions stay."""
        async with self.client.pipeline() as step:
            step.flushall()
            for key, (dump, expires_at) in self.dumps.items():
                step.restore(key, expires_at, dump, absttl=True)
            await step.execute()


async def moment_of(client: Redis) -> Moment:
    """What a server has now; the client gets bytes."""
    dumps: dict[bytes, tuple[bytes, int]] = {}
    async for key in client.scan_iter(count=1_000):
        if (dump := await client.dump(key)) is not None:
            dumps[key] = (dump, max(await client.pexpiretime(key), 0))
    return Moment(client, dumps)
