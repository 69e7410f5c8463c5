"""A run told to an experiment tracker, by a process of its own: nothing that a tracker does can touch a trial."""
