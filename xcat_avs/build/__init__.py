"""A build: what will run, running it, and what is noted of it."""
