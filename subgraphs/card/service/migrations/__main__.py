"""Upgrade the database to the newest schema: `python -m subgraphs.card.service.migrations`. Safe to run at any time."""

from pydantic import SecretStr

from kit.db.migrations import upgrade
from kit.runtime.settings import Settings


class MigrationSettings(Settings):
    """Settings of the migration."""

    card_database_url: SecretStr


if __name__ == "__main__":
    upgrade("subgraphs.card.service.migrations", MigrationSettings.load().card_database_url.get_secret_value())
