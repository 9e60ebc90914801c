"""The Redis store: keys, scripts, writes and tails; never a rule that the core does not have."""
