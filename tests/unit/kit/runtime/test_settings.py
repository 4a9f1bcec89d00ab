"""Where settings come from, and what is said of those that are wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from kit.runtime.settings import ServiceSettings, Settings
from provisioning.keys import ensure_key_pair


class Example(Settings):
    example_url: SecretStr
    example_debug: bool = False

    def production_errors(self) -> Iterator[str]:
        yield from super().production_errors()
        if self.example_debug:
            yield "EXAMPLE_DEBUG tells too much: leave it out"


class TestSources:
    def test_a_secret_may_be_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "example_url").write_text("postgresql://from-a-file\n")
        monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
        assert Example.load().example_url.get_secret_value() == "postgresql://from-a-file"

    def test_the_environment_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "example_url").write_text("from a file")
        monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
        monkeypatch.setenv("EXAMPLE_URL", "from the environment")
        assert Example.load().example_url.get_secret_value() == "from the environment"


class TestLoad:
    def test_says_what_is_missing_and_what_is_wrong_but_not_what_was_there(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("EXAMPLE_DEBUG", "s3cret")
        with pytest.raises(SystemExit) as ended:
            Example.load()
        told = capsys.readouterr().err
        assert ended.value.code == 2
        assert "EXAMPLE_URL: Field required" in told
        assert "EXAMPLE_DEBUG: Input should be a valid boolean" in told
        assert "s3cret" not in told


class TestProduction:
    def test_refuses_what_is_only_fit_for_development_and_says_what(self) -> None:
        with pytest.raises(ValidationError, match="EXAMPLE_DEBUG tells too much: leave it out"):
            Example(production=True, example_url=SecretStr("x"), example_debug=True)

    def test_takes_what_is_fit(self) -> None:
        assert Example(production=True, example_url=SecretStr("x")).production

    def test_is_not_asked_for_in_development(self) -> None:
        assert Example(example_url=SecretStr("x"), example_debug=True).example_debug

    def test_refuses_the_keys_of_the_embedded_stack_wherever_they_are_named(self, tmp_path: Path) -> None:
        ours, own = ensure_key_pair(tmp_path, "development"), tmp_path / "own.json"
        own.write_text('{"keys": []}')
        fit: dict[str, Any] = {
            "production": True,
            "auth_issuer": "https://issuer.example",
            "auth_jwks": own,
            "service_key_file": own,
        }
        assert ServiceSettings(**fit).production
        for name, wrong in (
            ("auth_jwks", ours.public),
            ("auth_services", {"card": ours.public}),
            ("service_key_file", ours.private),
        ):
            with pytest.raises(ValidationError, match=name.upper()):
                ServiceSettings(**fit | {name: wrong})
