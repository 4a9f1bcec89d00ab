"""Upgrade the database to the newest schema: `python -m subgraphs.bank.service.migrations`. Safe to run at any time."""

from pydantic import SecretStr

from kit.db.migrations import upgrade
from kit.runtime.job import run_job
from kit.runtime.settings import DatabaseUrl, LogSettings


class MigrationSettings(LogSettings):
    """Settings of the migration."""

    bank_database_url: DatabaseUrl
    bank_database_direct_url: SecretStr | None = None


def migrate(settings: MigrationSettings) -> None:
    """Run the job."""
    url = settings.bank_database_direct_url or settings.bank_database_url
    upgrade("subgraphs.bank.service.migrations", url.get_secret_value())


if __name__ == "__main__":
    run_job("bank-migrations", MigrationSettings, migrate)
