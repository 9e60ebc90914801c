"""One execution of a claimed run: the call of the agent, and the write that ends it."""
