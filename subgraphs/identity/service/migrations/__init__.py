"""Alembic's migrations of users and sign-ins."""
