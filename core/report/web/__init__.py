"""The dashboard: its server, the data that it answers with, and the page's own files in assets/."""
