"""Migrations of the schema of top-ups."""
