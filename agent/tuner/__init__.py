"""The researcher that needs no language model: it searches over constants and a menu of code changes."""
