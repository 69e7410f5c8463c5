"""Reading and changing train files as syntax trees."""
