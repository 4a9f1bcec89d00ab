"""`python -m subgraphs.identity.service.migrations`: migrate the database to the newest schema. Safe to repeat."""

from kit.db.migrations import upgrade
from kit.runtime.job import run_job
from kit.runtime.settings import DatabaseUrl, LogSettings


class MigrationSettings(LogSettings):
    """Settings of this command."""

    identity_database_url: DatabaseUrl


def migrate(settings: MigrationSettings) -> None:
    """Run the job."""
    upgrade("subgraphs.identity.service.migrations", settings.identity_database_url.get_secret_value())


if __name__ == "__main__":
    run_job("identity-migrations", MigrationSettings, migrate)
