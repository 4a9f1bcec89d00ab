"""`python -m subgraphs.analytics.service.migrations`: upgrade ClickHouse to the newest schema. Safe to repeat."""

import asyncio
import sys

from pydantic import SecretStr

from kit.runtime.settings import Settings
from subgraphs.analytics.service.migrations.schema import SchemaMismatch, upgrade


class MigrationSettings(Settings):
    """Settings of the migration job."""

    clickhouse_dsn: SecretStr


if __name__ == "__main__":
    try:
        asyncio.run(upgrade(MigrationSettings.load().clickhouse_dsn.get_secret_value()))
    except SchemaMismatch as error:
        sys.exit(str(error))
