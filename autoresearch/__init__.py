"""The namespace under which `core`, `backends` and `agent` are installed."""

__version__ = "0.1.0"
