"""Upgrade the database to the newest schema: `python -m subgraphs.card.service.migrations`. Safe to run at any time."""

from kit.db.migrations import run_upgrade
from kit.runtime.job import run_job
from kit.runtime.settings import DatabaseUrl, LogSettings


class MigrationSettings(LogSettings):
    """Settings of the migration."""

    card_database_url: DatabaseUrl


def migrate(settings: MigrationSettings) -> None:
    """Run the job."""
    run_upgrade("subgraphs.card.service.migrations", "CARD_DATABASE_URL", settings.card_database_url)


if __name__ == "__main__":
    run_job("card-migrations", MigrationSettings, migrate)
