"""Stores inside one process or one machine: memory, SQLite and RocksDB over one engine."""
