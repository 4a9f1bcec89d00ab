"""The operator's commands."""

from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from cli import main
from cli.integrity import Proven
from cli.main import app
from kit.principal import Verifier
from stack.keys import key_pair
from stack.plan import AUDIENCE, ISSUER
from stack.seed import OWNERS


class TestToken:
    def test_is_one_that_the_services_believe(self, tmp_path: Path) -> None:
        pair = key_pair(tmp_path / "keys", "development")
        printed = CliRunner().invoke(app, ["token", "--user", "alice", "--data", str(tmp_path)])
        verifier = Verifier(ISSUER, {ISSUER: jwt.PyJWKSet.from_json(pair.public.read_text())}, AUDIENCE)
        assert verifier.verify(printed.output.strip()).subject == OWNERS["alice"].user

    def test_without_a_stack_says_what_to_do(self, tmp_path: Path) -> None:
        refused = CliRunner().invoke(app, ["token", "--user", "bob", "--data", str(tmp_path)])
        assert refused.exit_code == 2
        assert "make up" in refused.output

    def test_of_a_stranger_is_refused(self) -> None:
        assert CliRunner().invoke(app, ["token", "--user", "mallory"]).exit_code == 2


class TestIntegrity:
    def test_asks_the_bank_of_the_stack_on_this_port(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def follow(admin: str) -> Proven:
            asked.append(admin)
            return Proven.BROKEN

        monkeypatch.setattr(main, "follow", follow)
        assert CliRunner().invoke(app, ["integrity", "--port", "8010"]).exit_code == 1
        assert CliRunner().invoke(app, ["integrity", "--admin", "http://bank:9101/"]).exit_code == 1
        assert asked == ["http://127.0.0.1:9111", "http://bank:9101"]

    def test_of_a_port_that_no_stack_can_have_is_refused(self) -> None:
        assert CliRunner().invoke(app, ["integrity", "--port", "80"]).exit_code == 2
