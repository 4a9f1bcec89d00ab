"""`python -m subgraphs.bank.service.migrations`: brings the database to the newest schema. Safe to run at any time."""

from pydantic import SecretStr

from kit.db.migrations import upgrade
from kit.runtime.settings import Settings


class MigrationSettings(Settings):
    """Which database."""

    bank_database_url: SecretStr


if __name__ == "__main__":
    upgrade("subgraphs.bank.service.migrations", MigrationSettings.load().bank_database_url.get_secret_value())
