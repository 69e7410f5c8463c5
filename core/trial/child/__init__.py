"""Code that runs in a trial's processes, next to the train file."""
