"""Changes that runs on other devices have kept, and whether they hold here."""
