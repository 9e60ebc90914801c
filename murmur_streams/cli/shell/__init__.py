"""Shared by all commands: the program, its options, printing, and the source of the runs."""
