"""Programs that work for a benchmark, each in a process of its own."""
