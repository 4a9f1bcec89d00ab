"""Alembic's entry."""

from kit.migrations import run_migrations
from subgraphs.bank.tables import metadata

run_migrations(metadata)
