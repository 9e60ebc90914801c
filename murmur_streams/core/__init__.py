"""The pure core: values, the transition table, decide and evolve; never I/O, a clock or asyncio."""
