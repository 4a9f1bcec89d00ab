"""Alembic for every service that owns a PostgreSQL database: two lines in each."""

import asyncio
from importlib import import_module
from typing import Final

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, MetaData, make_url, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

_LOCK: Final = 7_708_141_927
"""Advisory lock that lets one migration run at a time; the number is arbitrary and only has to stay."""


def config(package: str, url: str) -> Config:
    """Alembic's configuration for the migrations in a package."""
    settings = Config()
    settings.set_main_option("path_separator", "os")
    settings.set_main_option("script_location", import_module(package).__path__[0])
    settings.attributes["url"] = url
    return settings


def upgrade(package: str, url: str) -> None:
    """Brings the database at the URL to the newest schema of the package. Idempotent; runs one at a time.

    Args:
        package: the dotted name of the migrations, such as `subgraphs.bank.service.migrations`.
        url: `postgresql://…`.
    """
    command.upgrade(config(package, url), "head")


def run_migrations(metadata: MetaData) -> None:
    """What a migration package's `env.py` calls.

    Args:
        metadata: the tables as the code knows them, to compare the database with.
    """
    url = make_url(context.config.attributes["url"]).set(drivername="postgresql+asyncpg")

    def migrate(connection: Connection) -> None:
        context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            context.run_migrations()

    async def connect() -> None:
        engine = create_async_engine(url, poolclass=pool.NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
            await connection.commit()
        await engine.dispose()

    asyncio.run(connect())
