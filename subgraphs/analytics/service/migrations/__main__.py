"""`python -m subgraphs.analytics.service.migrations`: upgrade ClickHouse to the newest schema. Safe to repeat."""

import asyncio
import sys

from kit.runtime.job import run_job
from kit.runtime.settings import ClickHouseUrl, LogSettings
from subgraphs.analytics.service.migrations.schema import SchemaMismatch, upgrade


class MigrationSettings(LogSettings):
    """Settings of the migration job."""

    clickhouse_dsn: ClickHouseUrl


def migrate(settings: MigrationSettings) -> None:
    """Run the job. If the schema differs from the code, the job ends with a message."""
    try:
        asyncio.run(upgrade(settings.clickhouse_dsn.get_secret_value()))
    except SchemaMismatch as error:
        sys.exit(str(error))


if __name__ == "__main__":
    run_job("analytics-migrations", MigrationSettings, migrate)
