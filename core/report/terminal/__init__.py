"""Live view, tables and curves for a terminal."""
