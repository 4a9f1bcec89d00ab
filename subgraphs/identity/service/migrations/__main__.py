"""`python -m subgraphs.identity.service.migrations`: migrate the database to the newest schema. Safe to repeat."""

from kit.db.migrations import run_upgrade
from kit.runtime.job import run_job
from kit.runtime.settings import DatabaseUrl, LogSettings


class MigrationSettings(LogSettings):
    """Settings of this command."""

    identity_database_url: DatabaseUrl


def migrate(settings: MigrationSettings) -> None:
    """Run the job."""
    run_upgrade("subgraphs.identity.service.migrations", "IDENTITY_DATABASE_URL", settings.identity_database_url)


if __name__ == "__main__":
    run_job("identity-migrations", MigrationSettings, migrate)
