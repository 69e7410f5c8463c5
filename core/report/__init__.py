"""What people look at: the terminal's views, the dashboard, the report, and what these share."""
