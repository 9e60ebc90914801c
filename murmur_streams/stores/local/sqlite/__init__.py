"""The SQLite file: its tables, statements and errors; never a rule that the core does not have."""
