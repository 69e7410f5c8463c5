"""Keep a trial's processes away from the machine: isolation levels, environment and guard."""
