"""Report a run to an experiment tracker, from a process of its own: no tracker can disturb a trial."""
