"""What a worker on RocksDB has to be told: nobody outside its process can give it work."""

from __future__ import annotations

import logging
import shlex

logger = logging.getLogger("murmur_streams.processes")


def alone_words(fleet: str, url: str) -> str:
    """How others reach the runs of a folder that one process has for itself."""
    words = ["murmur-streams", "serve", fleet, "--with-worker", "--url", url]
    return (
        "a RocksDB folder is for one process, and others reach it only over HTTP: "
        f"{shlex.join(words)}"
    )


def warn_alone(fleet: str, url: str) -> None:
    """Log the same."""
    logger.warning("nobody else can submit to this worker: %s", alone_words(fleet, url))
