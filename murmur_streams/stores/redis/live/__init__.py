"""Following runs: replay from the journal, then a blocked XREAD that many readers share."""
