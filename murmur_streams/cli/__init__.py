"""The command line, one command a file: it asks the layers below and prints; no engine code."""
