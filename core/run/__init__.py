"""Run the research loop: propose, train, judge, record."""
