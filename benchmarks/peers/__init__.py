"""Job engines over Redis, and ours, each behind the same three calls.

Each module is the program of a worker and of a caller: it has the engine's agents or tasks,
``worker(url)``, the arguments that start its worker as its users do, and ``client(url)``, a context
manager that yields an ``Engine``. A peer's packages are on the path only in its own processes.
"""
