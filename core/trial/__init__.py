"""One trial: children in a sandbox, the clock, the score, the audit."""
