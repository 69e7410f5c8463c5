"""Measure a finished run's files again. One file per command (verify, ablate, scale) and what they share.

`remeasure` runs the trials, `pairs` compares two files at equal seeds.

A further command adds a file here: a function that takes a `Remeasurer`, trains and scores with it, and returns the
record that is noted in the ledger; and its options in core/cli.
"""
