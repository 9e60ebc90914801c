"""The commands for workers, pods, pauses and dead letters."""
