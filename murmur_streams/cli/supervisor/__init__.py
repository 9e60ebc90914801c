"""Processes: a worker, a pod, the supervisor of several workers, and their health for probes."""
