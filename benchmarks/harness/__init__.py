"""Rounds, programs, servers and results: what every benchmark shares."""
