"""Runs in a RocksDB folder of one process: keys and rows live here, never a rule of the core."""
