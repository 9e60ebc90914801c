"""What travels over HTTP, once for both ends: bodies, problems, limits, event streams; no I/O."""
