"""The demo: a fleet that reads real source files, its story, and the proof; no engine code."""
