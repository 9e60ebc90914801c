"""The commands for work: workers, pods, pauses and dead letters."""
