"""Sources, validation and deprecated names of settings."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr, ValidationError

from kit.runtime.settings import (
    Address,
    CallSettings,
    ClickHouseUrl,
    DatabaseUrl,
    GrpcTarget,
    ServiceSettings,
    Settings,
    TLSSettings,
)
from provisioning.certificates import ensure_certificates
from provisioning.keys import ensure_key_pair


class Example(Settings):
    deprecated_names: ClassVar[Mapping[str, str]] = {"example_verbose": "example_debug"}

    example_url: SecretStr
    example_debug: bool = False

    def production_errors(self) -> Iterator[str]:
        yield from super().production_errors()
        if self.example_debug:
            yield "EXAMPLE_DEBUG logs secrets: unset it"


class TestSources:
    def test_setting_is_read_from_a_file_in_the_secrets_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "example_url").write_text("postgresql://from-a-file\n")
        monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
        assert Example.load().example_url.get_secret_value() == "postgresql://from-a-file"

    def test_environment_has_precedence_over_the_secrets_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "example_url").write_text("from a file")
        monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
        monkeypatch.setenv("EXAMPLE_URL", "from the environment")
        assert Example.load().example_url.get_secret_value() == "from the environment"


class TestDeprecatedNames:
    @pytest.fixture(autouse=True)
    def url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXAMPLE_URL", "postgresql://…")

    def test_old_name_sets_the_new_field(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXAMPLE_VERBOSE", "true")
        assert Example.load().example_debug

    def test_new_name_has_precedence_over_the_old_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EXAMPLE_VERBOSE", "true")
        monkeypatch.setenv("EXAMPLE_DEBUG", "false")
        assert not Example.load().example_debug

    def test_old_names_in_use_are_listed_with_the_new_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert Example.deprecated_names_in_use() == []
        monkeypatch.setenv("EXAMPLE_VERBOSE", "true")
        assert Example.deprecated_names_in_use() == [("EXAMPLE_VERBOSE", "EXAMPLE_DEBUG")]

    def test_subclass_keeps_the_old_names_of_its_bases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Both(Example, CallSettings):
            pass

        monkeypatch.setenv("EXAMPLE_VERBOSE", "true")
        monkeypatch.setenv("CALL_LIMIT_OF_ONE", "7")
        settings = Both.load()
        assert (settings.example_debug, settings.call_max_per_caller) == (True, 7)


class TestLoad:
    def test_invalid_settings_exit_with_their_names_and_without_their_values(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("EXAMPLE_DEBUG", "s3cret")
        with pytest.raises(SystemExit) as ended:
            Example.load()
        errors = capsys.readouterr().err
        assert ended.value.code == 2
        assert "EXAMPLE_URL: is required" in errors
        assert "EXAMPLE_DEBUG: must be true or false" in errors
        assert "s3cret" not in errors


class TestProduction:
    def test_development_setting_is_refused_in_production(self) -> None:
        with pytest.raises(ValidationError, match="EXAMPLE_DEBUG logs secrets: unset it"):
            Example(production=True, example_url=SecretStr("x"), example_debug=True)

    def test_production_setting_is_accepted_in_production(self) -> None:
        assert Example(production=True, example_url=SecretStr("x")).production

    def test_development_setting_is_accepted_outside_of_production(self) -> None:
        assert Example(example_url=SecretStr("x"), example_debug=True).example_debug

    def test_keys_of_the_embedded_stack_are_refused_in_production(self, tmp_path: Path) -> None:
        development, production_keys = ensure_key_pair(tmp_path, "development"), tmp_path / "production.json"
        production_keys.write_text('{"keys": []}')
        valid: dict[str, Any] = {
            "production": True,
            "auth_issuer": "https://issuer.example",
            "auth_jwks": production_keys,
            "service_key_file": production_keys,
        }
        assert ServiceSettings(**valid).production
        for name, development_key in (
            ("auth_jwks", development.public),
            ("auth_services", {"card": development.public}),
            ("service_key_file", development.private),
        ):
            with pytest.raises(ValidationError, match=name.upper()):
                ServiceSettings(**valid | {name: development_key})


class Endpoints(TLSSettings):
    example_grpc_listen: Address = "127.0.0.1:50051"
    example_grpc_target: GrpcTarget = "dns:///localhost:50052"


def set_tls_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create certificates of two services, and set the variables to those of the first."""
    authority, bank, _ = ensure_certificates(folder, ["bank", "card"], datetime.now(UTC))
    monkeypatch.setenv("TLS_CERTIFICATE", str(bank.certificate))
    monkeypatch.setenv("TLS_KEY", str(bank.key))
    monkeypatch.setenv("TLS_AUTHORITY", str(authority.certificate))


class TestTLSFiles:
    @pytest.mark.parametrize(
        ("name", "file", "message"),
        [
            ("TLS_KEY", "card.key", "TLS_CERTIFICATE, TLS_KEY: must be a certificate and its own private key"),
            ("TLS_KEY", "bank.pem", "TLS_CERTIFICATE, TLS_KEY: must be a certificate and its own private key"),
            ("TLS_CERTIFICATE", "bank.key", "TLS_CERTIFICATE, TLS_KEY: must be a certificate and its own private"),
            ("TLS_AUTHORITY", "bank.key", "TLS_AUTHORITY: must be a file with certificates (PEM)"),
            ("TLS_AUTHORITY", "", "TLS_AUTHORITY: must be a file with certificates (PEM)"),
        ],
    )
    def test_files_that_do_not_belong_together_are_refused_by_name(
        self,
        name: str,
        file: str,
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        set_tls_files(tmp_path, monkeypatch)
        Endpoints.load()
        monkeypatch.setenv(name, str(tmp_path / file))
        with pytest.raises(SystemExit):
            Endpoints.load()
        (line,) = capsys.readouterr().err.splitlines()[1:]
        assert line.startswith(f"  {message}")


class Databases(Settings):
    example_database_url: DatabaseUrl = SecretStr("postgresql:///example?host=/tmp")
    example_dsn: ClickHouseUrl = SecretStr("https://clickhouse.example")


class TestDatabaseUrls:
    @pytest.mark.parametrize(
        ("name", "value", "rule"),
        [
            ("EXAMPLE_DATABASE_URL", "nonsense", "must be a URL such as postgresql://"),
            ("EXAMPLE_DATABASE_URL", "mysql://user:secret@host/db", "must be a URL such as postgresql://"),
            (
                "EXAMPLE_DATABASE_URL",
                "postgresql://user:secret@host/db?foo=1",
                "has the parameter foo, which is not one",
            ),
            ("EXAMPLE_DATABASE_URL", "postgresql://user:secret@host:port/db", "must have a port from 1 to 65535"),
            ("EXAMPLE_DSN", "http://user:secret@host/db?foo=1", "has the parameter foo, which is not one of ca_cert"),
            ("EXAMPLE_DSN", "http:///wallet", "must be a URL such as http://"),
            ("EXAMPLE_DSN", "clickhouse://user:secret@host:9000", "must be a URL such as http://"),
        ],
    )
    def test_value_that_is_no_url_of_the_database_is_refused_and_not_quoted(
        self, name: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Databases.load()
        monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            Databases.load()
        message = capsys.readouterr().err
        assert f"{name}: {rule}" in message
        assert "secret" not in message
        assert "nonsense" not in message


class TestPlaintext:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("EXAMPLE_GRPC_LISTEN", "0.0.0.0:9371"),
            ("EXAMPLE_GRPC_LISTEN", "[::]:9371"),
            ("EXAMPLE_GRPC_TARGET", "10.0.0.1:50051"),
            ("EXAMPLE_GRPC_TARGET", "ipv4:127.0.0.1:50051,10.0.0.1:50051"),
        ],
    )
    def test_address_outside_of_loopback_needs_tls_and_its_setting_is_named(
        self,
        name: str,
        value: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            Endpoints.load()
        title, message = capsys.readouterr().err.splitlines()
        assert (ended.value.code, title) == (2, "the settings are wrong:")
        assert message.startswith(f"  {name}: is not on loopback, and plaintext is for loopback only: set TLS_CERT")
        set_tls_files(tmp_path, monkeypatch)
        Endpoints.load()

    def test_addresses_on_loopback_need_no_tls(self) -> None:
        Endpoints.load()


class Files(Settings):
    created_files: ClassVar[frozenset[str]] = frozenset({"example_created"})

    example_key: Path
    example_keys: dict[str, Path]
    example_option: Path | None = None
    example_created: Path


def test_settings_with_missing_files_are_named_without_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key, missing = tmp_path / "key.pem", tmp_path / "missing.pem"
    key.touch()
    monkeypatch.setenv("EXAMPLE_CREATED", str(missing))
    monkeypatch.setenv("EXAMPLE_KEY", str(missing))
    monkeypatch.setenv("EXAMPLE_KEYS", json.dumps({"card": str(key), "analytics": str(missing)}))
    with pytest.raises(SystemExit) as ended:
        Files.load()
    title, *messages = capsys.readouterr().err.splitlines()
    assert (ended.value.code, title) == (2, "the settings are wrong:")
    rule = "must be the path of a file or folder that exists and that this process can read"
    assert messages == [f"  EXAMPLE_KEY: {rule}", f"  EXAMPLE_KEYS: {rule}"]
    monkeypatch.setenv("EXAMPLE_KEY", str(key))
    monkeypatch.setenv("EXAMPLE_KEYS", json.dumps({"card": str(key)}))
    assert Files.load().example_key == key
