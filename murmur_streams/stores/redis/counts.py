"""The numbers of partitions that the runs of a key space were created with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Self

from murmur_streams.core.model.errors import StoreConfigurationError

MOST_PARTITIONS = 256
MOST_NUMBERS = 4
"""With more of them, too many partitions would be asked for a run."""


@dataclass(frozen=True, slots=True)
class PartitionCounts:
    """The numbers, the newest last.

    A new run is created in the partition that the newest number gives. A run that was created
    before a raise stays in its partition, so the older numbers are used until their last run is
    gone.
    """

    numbers: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a key space records, such as ``1,16``.

        Raises:
            ValueError: these are not numbers of partitions.
        """
        counts = cls(tuple(int(part) for part in text.split(",")))
        if not all(1 <= number <= MOST_PARTITIONS for number in counts.numbers):
            raise ValueError(f"not numbers of partitions: {text!r}")
        return counts

    def __str__(self) -> str:
        return ",".join(map(str, self.numbers))

    @property
    def newest(self) -> int:
        """The number for new runs; it is the largest one, too."""
        return self.numbers[-1]

    @property
    def is_single(self) -> bool:
        """Whether no run has an older number."""
        return len(self.numbers) == 1

    def raised(self, number: int) -> PartitionCounts:
        """These with a larger number for new runs.

        Raises:
            StoreConfigurationError: it is not larger, or there are too many older ones.
        """
        if number <= self.newest:
            raise StoreConfigurationError(
                f"the runs have {self.newest} partitions; {number} is not more"
            )
        if len(self.numbers) == MOST_NUMBERS:
            raise StoreConfigurationError(
                f"there are runs of {len(self.numbers)} numbers of partitions ({self}): wait until "
                "the oldest ones are gone, and call `murmur-streams partitions forget`"
            )
        return PartitionCounts((*self.numbers, number))

    def only_newest(self) -> PartitionCounts:
        """These without the older numbers."""
        return PartitionCounts(self.numbers[-1:])

    def follows(self, other: PartitionCounts) -> bool:
        """Whether raises, or forgotten numbers, made these of the others."""
        is_later = (self.newest, -len(self.numbers)) > (other.newest, -len(other.numbers))
        return is_later and other.newest in self.numbers

    def of_new_run(self, run_id: str) -> int:
        """The partition in which a run with this id is created."""
        return zlib.crc32(run_id.encode()) % self.newest if self.newest > 1 else 0

    def older_partitions(self, run_id: str) -> list[int]:
        """The other partitions in which a run with this id may be, the oldest first."""
        hashed = zlib.crc32(run_id.encode())
        found = dict.fromkeys(hashed % number for number in self.numbers[:-1])
        found.pop(hashed % self.newest, None)
        return [*found]
