"""The dashboard: a read-only web server and its page."""
