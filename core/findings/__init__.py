"""Share kept changes between runs on different devices: peer runs, and what they offer to this run."""
