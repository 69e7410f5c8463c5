"""Prompt texts, as files a person can read and edit."""
