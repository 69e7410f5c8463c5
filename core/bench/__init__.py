"""Measure how fast a backend is on this machine, and compare two backends, by real trials and their parts."""
