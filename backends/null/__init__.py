"""numpy: a bigram model that runs the whole system in seconds, for tests and --dry-run."""
