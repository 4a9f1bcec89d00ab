"""Entry point that Alembic calls."""

from kit.db.migrations import run_migrations
from subgraphs.bank.service.adapters.tables import metadata

run_migrations(metadata)
