"""Measure a finished run's files again: verify, ablate."""
