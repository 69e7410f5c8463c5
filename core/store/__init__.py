"""The records of a run: ledger, journal, git, and the files written from them."""
