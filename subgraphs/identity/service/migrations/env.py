"""Alembic environment."""

from kit.db.migrations import run_migrations
from subgraphs.identity.service.adapters.tables import metadata

run_migrations(metadata)
