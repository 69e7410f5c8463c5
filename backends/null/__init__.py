"""A bigram model in numpy: the whole system in seconds, for tests and dry runs."""
