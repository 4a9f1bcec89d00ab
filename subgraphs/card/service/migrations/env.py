"""Entry point that Alembic calls."""

from kit.db.migrations import run_migrations
from subgraphs.card.service.adapters.tables import metadata

run_migrations(metadata)
