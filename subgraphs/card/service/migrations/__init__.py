"""Alembic's migrations of the top-ups."""
