"""The commands for runs: submit, follow, list, show, cancel, retry."""
