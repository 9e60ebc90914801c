"""Adapters for other packages that use our stores, one in each file; imported by users only."""
