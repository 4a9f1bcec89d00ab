"""Upgrade the database to the newest schema: `python -m subgraphs.bank.service.migrations`. Safe to run at any time."""

from kit.db.migrations import run_upgrade
from kit.runtime.job import run_job
from kit.runtime.settings import DatabaseUrl, LogSettings


class MigrationSettings(LogSettings):
    """Settings of the migration."""

    bank_database_url: DatabaseUrl
    bank_database_direct_url: DatabaseUrl | None = None


def migrate(settings: MigrationSettings) -> None:
    """Run the job."""
    setting, url = "BANK_DATABASE_URL", settings.bank_database_url
    if settings.bank_database_direct_url is not None:
        setting, url = "BANK_DATABASE_DIRECT_URL", settings.bank_database_direct_url
    run_upgrade("subgraphs.bank.service.migrations", setting, url)


if __name__ == "__main__":
    run_job("bank-migrations", MigrationSettings, migrate)
