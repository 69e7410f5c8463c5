"""What is measured: every module here has `run()`, which returns rows with name, median, unit and note."""
