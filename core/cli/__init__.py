"""The command line, one file per command; the only place that wires core, backends and agent together."""
