"""`python -m subgraphs.analytics.service.migrations`: upgrade ClickHouse to the newest schema. Safe to repeat."""

import asyncio

from aiohttp import ClientError
from clickhouse_connect.driver.exceptions import DatabaseError

from kit.runtime.job import JobError, run_job
from kit.runtime.settings import ClickHouseUrl, LogSettings
from subgraphs.analytics.service.migrations.schema import SchemaMismatch, upgrade


class MigrationSettings(LogSettings):
    """Settings of the migration job."""

    clickhouse_dsn: ClickHouseUrl


def migrate(settings: MigrationSettings) -> None:
    """Run the job.

    Raises:
        JobError: the server does not respond or refuses a statement, or its schema differs from the code.
    """
    try:
        asyncio.run(upgrade(settings.clickhouse_dsn.get_secret_value()))
    except SchemaMismatch as error:
        raise JobError(str(error)) from error
    except (DatabaseError, ClientError, OSError, TimeoutError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise JobError(
            f"CLICKHOUSE_DSN: cannot upgrade ClickHouse; check that the server runs and that the URL is right, then "
            f"run the job again: {reason}"
        ) from error


if __name__ == "__main__":
    run_job("analytics-migrations", MigrationSettings, migrate)
