"""Foreign systems that use our stores, one a file; nothing of ours imports this."""
