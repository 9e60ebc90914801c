"""The worker process: claims runs, executes them, keeps their leases; decides no rule."""

from murmur_streams.fleet.worker.worker import Worker

__all__ = ["Worker"]
