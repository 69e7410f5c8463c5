"""What lasts: ledger, git, results.tsv."""
