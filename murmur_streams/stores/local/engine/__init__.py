"""Runs on this machine's disk: what the SQLite and the RocksDB store share; no SQL, no Redis."""
