"""Measure a script in upstream's form (karpathy/autoresearch and its ports) without changing a line of it.

Such a script imports its data and its metric from `prepare`, and trains while it is imported. `script` reads one
without running it. `stand_in` makes a train file of ours out of it, in the children that run it: a module of its own
stands in for `prepare`. `skeleton` writes the beginning of a real train file from it. Clock, score and audit are those
of `core.trial`.
"""
