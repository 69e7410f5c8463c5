"""The views of a run: terminal, dashboard and report, and the parts that these share."""
