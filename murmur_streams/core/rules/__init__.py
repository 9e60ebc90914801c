"""Every rule of a run, pure: what a command does, and what a journal means."""
