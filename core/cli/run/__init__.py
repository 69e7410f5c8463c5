"""`ar loop`: the command, its options, what they resolve to, the hooks, the session in the terminal, the dry run."""
