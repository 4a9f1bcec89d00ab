"""`python -m subgraphs.identity.migrations`: brings the database to the newest schema. Safe to run at any time."""

from pydantic import SecretStr

from kit.migrations import upgrade
from kit.settings import Settings


class MigrationSettings(Settings):
    """Which database."""

    identity_database_url: SecretStr


if __name__ == "__main__":
    upgrade("subgraphs.identity.migrations", MigrationSettings.load().identity_database_url.get_secret_value())
