"""Upgrade the database to the newest schema: `python -m subgraphs.bank.service.migrations`. Safe to run at any time."""

from pydantic import SecretStr

from kit.db.migrations import upgrade
from kit.runtime.settings import Settings


class MigrationSettings(Settings):
    """Settings of the migration."""

    bank_database_url: SecretStr


if __name__ == "__main__":
    upgrade("subgraphs.bank.service.migrations", MigrationSettings.load().bank_database_url.get_secret_value())
