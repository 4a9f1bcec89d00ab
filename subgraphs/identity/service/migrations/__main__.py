"""`python -m subgraphs.identity.service.migrations`: migrate the database to the newest schema. Safe to repeat."""

from pydantic import SecretStr

from kit.db.migrations import upgrade
from kit.runtime.settings import Settings


class MigrationSettings(Settings):
    """Settings of this command."""

    identity_database_url: SecretStr


if __name__ == "__main__":
    upgrade("subgraphs.identity.service.migrations", MigrationSettings.load().identity_database_url.get_secret_value())
