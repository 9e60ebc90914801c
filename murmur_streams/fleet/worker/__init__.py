"""The worker process: claims runs, executes them, keeps their leases; never decides a rule."""

from murmur_streams.fleet.worker.worker import Worker

__all__ = ["Worker"]
