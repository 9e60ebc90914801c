"""How one store uses its servers, and what should be mended on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from murmur_streams.core.model.errors import WritesDisabledError
from murmur_streams.stores.redis.connection.server_warnings import ServerWarnings


@dataclass(slots=True)
class StoreUse:
    """What the checks of all servers of one store have in common; set before the first use."""

    is_cluster: bool = False
    """Whether the servers must be nodes of a cluster, or may not be ones."""
    read_only: bool = False
    """Whether the store only reads: nothing is loaded into a server, and nothing written."""
    is_number_given: bool = True
    """Whether the store was opened with a number of partitions; else it takes the recorded one."""
    waits_for_replicas: bool = False
    """Whether the store's writes wait for the replicas."""
    warnings: ServerWarnings = field(default_factory=ServerWarnings)

    def check_may_write(self) -> None:
        """Refuse to write in a store that only reads; nothing was sent.

        Raises:
            WritesDisabledError: it only reads.
        """
        if self.read_only:
            raise WritesDisabledError(
                "this store was opened with read_only=True (MURMUR_READ_ONLY=1), and only reads"
            )
