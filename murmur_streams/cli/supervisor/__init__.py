"""Worker processes: one that works, the parent that keeps several, and what probes are told."""
