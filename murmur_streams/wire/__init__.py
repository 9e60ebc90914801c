"""The HTTP interface, written once for client and server: bodies, problems, event streams."""
