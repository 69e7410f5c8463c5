"""Read a train file without running it."""
