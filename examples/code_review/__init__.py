"""An example: a fleet whose agent reviews Python files, and a demo that tries to break it."""
