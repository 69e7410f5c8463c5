"""A change to one train file, carried over to another."""
