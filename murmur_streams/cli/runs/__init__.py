"""The commands for runs: submit, follow, show, cancel."""
