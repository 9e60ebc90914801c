"""One run that cannot be read must not keep the others from being read."""

from __future__ import annotations

from murmur_streams.core.model.errors import RunDamagedError, StoreDamagedError, StoreError

_NO_REBUILD = "its journal is damaged, so rebuild cannot mend it: import it from an older export"
_REBUILD = "`murmur-streams rebuild` may mend it"


def is_of_one_run(error: StoreError) -> bool:
    """Whether the next run may well be read, though this one could not be."""
    # What is wrong with the connection, the settings or the disk's room has a class of its own.
    return isinstance(error, RunDamagedError | StoreDamagedError) or type(error) is StoreError


def reason_of(error: StoreError) -> str:
    """Why a run could not be read, and what may help, where the run is named already."""
    if not isinstance(error, RunDamagedError):
        return str(error)
    return f"{error.what}; {_REBUILD if error.can_rebuild else _NO_REBUILD}"
