"""Pools of the ledger's database, with the settings and the codec of their sessions (see `kit.db.pool`)."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

import asyncpg
import orjson

from kit.db import pool as pools
from kit.db.pool import Connection
from kit.db.postgres import SESSION_SETTINGS

LABEL: Final = "the ledger's database"
"""Name of the database in error messages."""

_PLANS: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
"""Settings that force index scans and generic plans. With PostgreSQL's defaults, the planner may choose a sequential
scan of a large table, because the statistics of a growing table are out of date.
"""
_SETTINGS: Final = {**SESSION_SETTINGS, **_PLANS}

_MISSING_SETTINGS: Final = """
    SELECT name, value FROM unnest($1::text[], $2::text[]) AS wanted (name, value)
    JOIN pg_settings USING (name)
    WHERE current_setting(name) <> value OR reset_val <> setting
"""
"""Query for the settings that a session lacks, or has only because of a SET. `reset_val` is the value that a new
session gets; the current value may come from a SET of another client of the pooler."""


class MissingRoleSettings(Exception):
    """A session of a shared pool lacks defaults that its role must have. The message has the statements to add them."""


async def _set_codec(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
    )


open_pool: Final = partial(pools.open_pool, service="bank", settings=_SETTINGS, prepare=_set_codec)
"""Open a pool of the ledger's database. Arguments: the URL, `max_size` and `shares_sessions`.

With `shares_sessions`, the settings must be defaults of the role; see `check_role_settings`.
"""


def connection(pool: asyncpg.Pool) -> AbstractAsyncContextManager[Connection]:
    """Acquire a connection of the ledger's database; see `kit.db.pool.connection`."""
    return pools.connection(pool, LABEL)


async def check_role_settings(pool: asyncpg.Pool) -> None:
    """Check that a session of the pool has the settings that the bank needs, and has them from the role's defaults.

    Raises:
        MissingRoleSettings: some settings are missing or have other values.
        Unavailable: the database is unreachable.
    """
    async with connection(pool) as session:
        missing = await session.fetch(_MISSING_SETTINGS, list(_SETTINGS), list(_SETTINGS.values()))
        role = await session.fetchval("SELECT quote_ident(current_user)")
    if missing:
        statements = "".join(f" ALTER ROLE {role} SET {name} = '{value}';" for name, value in missing)
        raise MissingRoleSettings(
            f"with BANK_DATABASE_DIRECT_URL the role needs settings:{statements} "
            "Then run RECONNECT in PgBouncer's console: its open sessions keep the settings of their start."
        )
