"""Runs in this process's memory: rows in dictionaries and sorted lists, without a thread."""
