"""Alembic's entry."""

from kit.migrations import run_migrations
from subgraphs.card.tables import metadata

run_migrations(metadata)
