"""What `ar loop` needs: its options, the configuration they resolve to, and the session around a run."""
