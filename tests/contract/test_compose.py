"""`docker-compose.yml` matches the Compose schema and the code.

It agrees with the settings classes, the stack's processes, the secrets that `provisioning.compose` writes, and the
mounted files.
"""

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import asyncpg
import jsonschema
import pytest
import yaml
from pydantic import SecretStr

from kit.rpc.tls import TLS
from kit.runtime.settings import Settings
from provisioning.compose import write_secrets
from stack.engines.cluster import remove_cluster
from stack.engines.postgres import Postgres
from stack.plan import build_plan
from stack.ports import Ports, free_ports
from stack.process import ROOT, Child, Command, Process

SCHEMA: Final = ROOT / "tests/contract/vendor/compose-go-2.16.2/compose-spec.json"
SECRETS: Final = "/run/secrets"
UNCHECKED: Final = {"collector"}
"""Services without a health check. Comments in `docker-compose.yml` give the reasons."""


def resolved(value: Any) -> Any:
    """Replace each `${NAME:-default}` in the value with its default, recursively, as if all variables were unset."""
    if isinstance(value, dict):
        return {key: resolved(each) for key, each in value.items()}
    if isinstance(value, list):
        return [resolved(each) for each in value]
    if not isinstance(value, str):
        return value
    while (inner := re.sub(r"(?<!\$)\$\{\w+:-([^${}]*)\}", r"\1", value)) != value:
        value = inner
    return value.replace("$$", "$")


FILE: Final[dict[str, Any]] = resolved(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))
SERVICES: Final[dict[str, dict[str, Any]]] = FILE["services"]
JOBS: Final = {name for name, service in SERVICES.items() if service["restart"] == "no"}
OURS: Final = {name for name, service in SERVICES.items() if service["image"].startswith("wallet:")} - {"secrets"}

every_service = pytest.mark.parametrize("name", SERVICES)
every_process = pytest.mark.parametrize("name", sorted(OURS))


def service_environment(name: str) -> dict[str, str]:
    """Return the environment of a service, without variables that are passed through from the shell."""
    given = SERVICES[name].get("environment", {})
    return {key: value for key, value in given.items() if value is not None}


def settings_class(name: str) -> type[Settings]:
    """Return the settings class of the service's process."""
    module = SERVICES[name]["command"][2]
    imported = import_module(module if module == "provisioning.seed" else f"{module}.__main__")
    packages = (imported.__name__, f"{module}.settings")
    classes = (each for each in vars(imported).values() if isinstance(each, type) and each.__module__ in packages)
    return next(each for each in classes if issubclass(each, Settings))


def mounts(name: str) -> Iterator[tuple[str, str, bool]]:
    """Yield each volume of a service: source, target, read-only."""
    for mount in SERVICES[name].get("volumes", ()):
        source, target, *mode = mount.split(":")
        yield source, target, mode == ["ro"]


def networks(name: str) -> set[str]:
    return set(SERVICES[name].get("networks", ()))


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Secrets as written by the secrets job."""
    folder = tmp_path_factory.mktemp("secrets")
    write_secrets(folder, datetime.now(UTC))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Folder for a PostgreSQL cluster. The fixture deletes the cluster."""
    yield tmp_path
    remove_cluster(tmp_path)


@pytest.fixture
def environment(request: pytest.FixtureRequest, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment of one of our containers, with its secrets in a local folder."""
    name = request.node.callspec.params["name"]
    service = next(source for source, target, _ in mounts(name) if target == SECRETS).removesuffix("-secrets")
    given = {key: value.replace(SECRETS, str(secrets / service)) for key, value in service_environment(name).items()}
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    return given


def test_file_matches_the_compose_schema() -> None:
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(FILE)


class TestEveryService:
    @every_service
    def test_image_has_a_version(self, name: str) -> None:
        assert re.search(r":v?\d[\w.]*$", SERVICES[name]["image"])

    @every_service
    def test_service_has_a_health_check_or_is_a_job(self, name: str) -> None:
        check = SERVICES[name].get("healthcheck", {})
        has_check = "test" in check or ("HEALTH_URL" in service_environment(name) and not check)
        assert has_check is (name not in JOBS | UNCHECKED)

    @every_service
    def test_service_has_limits_log_rotation_and_no_new_privileges(self, name: str) -> None:
        service = SERVICES[name]
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["stop_grace_period"]

    @every_service
    def test_service_waits_for_healthy_dependencies(self, name: str) -> None:
        for other, how in SERVICES[name].get("depends_on", {}).items():
            assert how == {"condition": "service_completed_successfully" if other in JOBS else "service_healthy"}

    def test_job_is_a_dependency_or_has_a_profile(self) -> None:
        dependencies = {other for service in SERVICES.values() for other in service.get("depends_on", {})}
        assert JOBS - dependencies == {"load"}  # `up --wait` treats the end of any other job as a failure

    @every_service
    def test_environment_contains_no_secret(self, name: str) -> None:
        for key, value in service_environment(name).items():
            if re.search("PASSWORD|SECRET|KEY|TOKEN|CERTIFICATE", key):
                assert str(value).startswith(SECRETS)
        assert not re.search(r"://[^/\s]*:[^/\s]*@", json.dumps(SERVICES[name]))

    @every_service
    def test_service_mounts_at_most_one_secret_folder_read_only(self, name: str) -> None:
        secret_mounts = [
            (source, is_read_only) for source, _, is_read_only in mounts(name) if source.endswith("secrets")
        ]
        if name != "secrets":
            assert len(secret_mounts) <= 1
            assert all(is_read_only for _, is_read_only in secret_mounts)

    def test_only_nginx_is_public(self) -> None:
        exposed = {
            name: [port for port in service["ports"] if not port.startswith("127.0.0.1:")]
            for name, service in SERVICES.items()
            if "ports" in service
        }
        assert {name for name, ports in exposed.items() if ports} == {"nginx"}
        assert not networks("nginx") & (networks("bank") | networks("postgres") | networks("redis"))
        assert not networks("gateway") & networks("postgres")
        assert networks("acquirer") & networks("card") == networks("acquirer")

    def test_load_and_observability_have_profiles(self) -> None:
        profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
        assert profiles == {
            **{name: ["observability"] for name in ("collector", "jaeger", "prometheus", "grafana")},
            "load": ["load"],
        }


class TestOurProcesses:
    @every_process
    def test_settings_are_complete_and_known(self, name: str, environment: dict[str, str]) -> None:
        fields = settings_class(name).model_fields
        known = {field.upper() for field in fields} | {"SECRETS_DIR", "HEALTH_URL", "SANDBOX_IS_NOT_PRODUCTION"}
        assert SERVICES[name].get("environment", {}).keys() <= known
        settings = settings_class(name)()  # raises an error if a setting is missing
        secret = {field.upper() for field in fields if isinstance(getattr(settings, field), SecretStr)}
        assert not secret & environment.keys()
        for field in fields:
            if isinstance(path := getattr(settings, field), Path) and str(path) != "/data/acquirer.sqlite":
                assert path.exists(), field
        if "tls_key" in fields:
            assert TLS.from_settings(settings)  # type: ignore[arg-type]

    @every_process
    def test_process_listens_and_is_probed_on_its_default_port(self, name: str) -> None:
        given = service_environment(name)
        for key in given:
            if key.endswith("_LISTEN"):
                default = settings_class(name).model_fields[key.lower()].default.removeprefix("127.0.0.1")
                assert given[key] == f"0.0.0.0{default}"
        own = ("GATEWAY_LISTEN", "SANDBOX_LISTEN", f"{name.upper()}_ADMIN_LISTEN")
        if name not in JOBS:
            listen = next(given[key] for key in own if key in given)
            assert given["HEALTH_URL"] == f"http://{listen.replace('0.0.0.0', '127.0.0.1')}/health/ready"

    @every_process
    def test_targets_resolve_on_a_shared_network(self, name: str, secrets: Path) -> None:
        text = " ".join(map(str, service_environment(name).values()))
        folder = secrets / name
        text += " ".join(file.read_text() for file in folder.glob("*_*")) if folder.exists() else ""
        found = re.findall(r"(?:^|[/@ ])([a-z]+):(\d{4,5})\b", text)
        for host, port in found:
            assert networks(name) & networks(host), host
            assert int(port) in listening_ports(host)
        assert found or name in JOBS

    async def test_compose_and_stack_set_the_same_settings(self, secrets: Path, home: Path) -> None:
        ports = Ports.free()
        for process in build_plan(ports, home, Postgres(home, ports.postgres), tls=True):
            if process.name in OURS:
                in_stack = (await process.command()).environment.keys() - os.environ.keys()
                files = {file.name.upper() for file in (secrets / process.name).glob("*")}
                in_compose = service_environment(process.name).keys() | files | secrets_of_job(process.name, secrets)
                only_in_stack = {"GRPC_VERBOSITY", "PYTHONUNBUFFERED", "LOG_FORMAT", "IDENTITY_ACCESS_SECONDS"}
                assert in_stack - only_in_stack <= in_compose

    def test_containers_are_read_only_and_unprivileged(self) -> None:
        for name in OURS | {"load"}:
            assert SERVICES[name]["read_only"] is True
            assert SERVICES[name]["cap_drop"] == ["ALL"]


def listening_ports(name: str) -> set[int]:
    """Return the ports on which other services call a service."""
    known = {"postgres": {5432}, "kafka": {9092}, "clickhouse": {8123}, "redis": {6379}}
    given = service_environment(name) if name in OURS else {}
    return known.get(name) or {int(given[key].rpartition(":")[2]) for key in given if key.endswith("_LISTEN")}


def secrets_of_job(name: str, secrets: Path) -> set[str]:
    """Return the names of a migration job's secrets, which are the secrets of its service."""
    return {file.name.upper() for file in (secrets / name.removesuffix("-migrations")).glob("*")}


class TestSecrets:
    def test_each_secret_folder_has_a_volume_and_an_image_folder(self, secrets: Path) -> None:
        made = {f"/secrets/{folder.name}" for folder in secrets.iterdir()}
        assert {target for _, target, _ in mounts("secrets")} == made
        assert set(re.findall(r"/secrets/\w+", (ROOT / "Dockerfile").read_text())) == made
        used = {source for name in SERVICES for source, _, _ in mounts(name) if not source.startswith(".")}
        assert used == FILE["volumes"].keys()

    def test_secrets_are_kept_and_certificates_renewed(self, tmp_path: Path) -> None:
        def contents() -> dict[str, str]:
            return {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*") if file.is_file()}

        now = datetime.now(UTC)
        write_secrets(tmp_path, now)
        first = contents()
        write_secrets(tmp_path, now)
        assert contents() == first
        write_secrets(tmp_path, now.replace(year=now.year + 1))
        changed = {name for name, text in contents().items() if first[name] != text}
        services = ("bank", "card", "analytics", "identity", "gateway", "nginx")
        assert {name for name in changed if not name.startswith("own/")} == {
            f"{name}/tls.{kind}" for name in services for kind in ("pem", "key")
        }

    def test_secrets_are_readable_by_their_container_only(self, secrets: Path) -> None:
        for file in (each for each in secrets.rglob("*") if each.is_file()):
            of_another_user = file.parent.name in {"nginx", "postgres", "clickhouse", "redis"}
            assert file.stat().st_mode & 0o777 == (0o444 if of_another_user else 0o600), file
        (secrets / "nginx" / "tls.pem").chmod(0o600)  # as after an interrupted run
        write_secrets(secrets, datetime.now(UTC))
        assert (secrets / "nginx" / "tls.pem").stat().st_mode & 0o777 == 0o444
        authority = (secrets / "own/tls/authority.key").read_text()
        held = [file for file in secrets.rglob("*") if file.is_file() and authority in file.read_text()]
        assert [file.parent.name for file in held] == ["tls"]


class TestMounted:
    @every_service
    def test_mounted_file_exists(self, name: str) -> None:
        assert all((ROOT / source).exists() for source, _, _ in mounts(name) if source.startswith("."))

    def test_nginx_has_every_variable_of_its_template(self) -> None:
        template = (ROOT / "deploy/nginx/templates/default.conf.template").read_text()
        assert set(re.findall(r"\$\{(\w+)\}", template)) == service_environment("nginx").keys()

    def test_prometheus_reaches_every_scrape_target(self) -> None:
        configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        found = [job["dns_sd_configs"][0] for job in configuration["scrape_configs"]]
        assert {name for each in found for name in each["names"]} == {
            "gateway",
            "bank",
            "card",
            "analytics",
            "identity",
        }
        for each in found:
            (name,) = each["names"]
            assert networks("prometheus") & networks(name)
            assert service_environment(name)[f"{name.upper()}_ADMIN_LISTEN"] == f"0.0.0.0:{each['port']}"

    @pytest.mark.slow
    async def test_databases_belong_to_their_services(self, secrets: Path, home: Path) -> None:
        async with Postgres(home, free_ports(1)[0], databases=()) as postgres:
            await Child(Process(name="databases", command=database_script(postgres, secrets))).start()
            for name in ("bank", "card", "identity"):
                url = (secrets / name / f"{name}_database_url").read_text()
                url = url.replace("postgres:5432", f"127.0.0.1:{postgres.port}")
                connection = await asyncpg.connect(url)
                await connection.execute("CREATE TABLE mine (id int)")
                await connection.close()
                other = "card" if name == "bank" else "bank"
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await asyncpg.connect(url.removesuffix(name) + other)


def database_script(postgres: Postgres, secrets: Path) -> Any:
    """Return the command that runs `databases.sh` as PostgreSQL's image does."""

    async def command() -> Command:
        return Command(
            ["sh", str(ROOT / "deploy/postgres/databases.sh")],
            {
                "PATH": f"{postgres.cluster.binaries}:{os.defpath}",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(postgres.port),
                "PGPASSWORD": postgres.cluster.passwords["postgres"],
                "POSTGRES_USER": "postgres",
                "SECRETS_DIR": str(secrets / "postgres"),
            },
        )

    return command
