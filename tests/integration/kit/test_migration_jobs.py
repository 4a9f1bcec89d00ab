"""Migration jobs whose server does not respond or refuses them."""

from collections.abc import Callable

import pytest
from pydantic import SecretStr

from kit.db.migrations import run_upgrade
from kit.runtime.job import JobError
from stack.engines.postgres import Postgres
from stack.ports import free_ports
from tests.migration_jobs import migrate

PACKAGE = "subgraphs.identity.service.migrations"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda url: url.replace("@127.0.0.1", ":wrong@127.0.0.1"), "InvalidPasswordError", id="password"),
        pytest.param(lambda url: f"{url}_missing", "InvalidCatalogNameError", id="database"),
        pytest.param(lambda url: f"{url}?sslmode=require", "ConnectionError", id="TLS"),
        pytest.param(lambda url: url.replace("127.0.0.1", "no-such-host.invalid"), "gaierror", id="host"),
    ],
)
def test_refused_connection_is_reported_with_its_setting_and_without_the_password(
    url: str, change: Callable[[str], str], reason: str
) -> None:
    with pytest.raises(JobError) as caught:
        run_upgrade(PACKAGE, "EXAMPLE_DATABASE_URL", SecretStr(change(url)))
    message = str(caught.value)
    assert message.startswith("EXAMPLE_DATABASE_URL: cannot connect to the database; check that the server runs and")
    assert f": {reason}: " in message
    assert url.split("@", maxsplit=1)[0].rpartition(":")[2] not in message


async def test_refused_statement_is_reported_with_its_setting(url: str, postgres: Postgres) -> None:
    database_of_another_role = postgres.dsn("identity", url.rpartition("/")[2])
    code, lines = await migrate("identity", IDENTITY_DATABASE_URL=database_of_another_role)
    assert code == 1
    (line,) = lines
    assert line["event"] == "job failed"
    assert line["error"].startswith("IDENTITY_DATABASE_URL: the database refused a migration")
    assert "InsufficientPrivilegeError: permission denied for schema public" in line["error"]


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["BANK_DATABASE_URL", "CARD_DATABASE_URL", "BANK_DATABASE_DIRECT_URL"])
async def test_job_without_a_server_logs_one_line_with_its_setting_and_exits_with_status_1(setting: str) -> None:
    service = setting.partition("_")[0].lower()
    nowhere = f"postgresql://{service}:s3cret@127.0.0.1:{free_ports(1)[0]}/{service}"
    environment = {f"{service.upper()}_DATABASE_URL": nowhere, setting: nowhere}
    code, lines = await migrate(service, **environment)
    assert code == 1
    (line,) = lines
    assert (line["event"], line["level"], line["service"]) == ("job failed", "critical", f"{service}-migrations")
    assert line["error"].startswith(f"{setting}: cannot connect to the database; check that the server runs")
    assert "s3cret" not in str(line)
