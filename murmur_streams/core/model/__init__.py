"""Values: the run, its states, events, entries, results, commands, errors and limits."""
