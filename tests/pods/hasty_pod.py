"""A pod whose streams and waits end at once: ``python -m tests.pods.hasty_pod PORT``."""

from __future__ import annotations

import sys

import uvicorn

from murmur_streams.server import ServerOptions, make_app
from tests.fleet.app import fleet

if __name__ == "__main__":
    app = make_app(fleet, ServerOptions(stream_seconds=0.1, max_wait_seconds=0.1, retry_ms=1))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
