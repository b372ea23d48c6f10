"""Texts of our own: prompts and replies. Whoever changes a line changes a table."""
