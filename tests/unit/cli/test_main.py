"""The operator's commands."""

from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from cli import main
from cli.integrity import Proven, worst
from cli.main import app
from cli.replay import Replayed
from cli.reports import Admin
from cli.topups import Reviewed
from kit.keys import KeySet
from kit.principal import Role, Verifier
from stack.keys import key_pair
from stack.plan import AUDIENCE, ISSUER
from stack.seed import OWNERS


class TestToken:
    async def test_is_one_that_the_services_believe(self, tmp_path: Path) -> None:
        pair = key_pair(tmp_path / "keys", "development")
        printed = CliRunner().invoke(app, ["token", "--user", "alice", "--data", str(tmp_path)])
        verifier = Verifier(ISSUER, {ISSUER: KeySet.fixed(pair.public.read_text())}, AUDIENCE)
        caller = await verifier.verify(printed.output.strip())
        assert (caller.subject, caller.roles) == (OWNERS["alice"].user, frozenset({Role.CUSTOMER}))

    def test_without_a_stack_says_what_to_do(self, tmp_path: Path) -> None:
        refused = CliRunner().invoke(app, ["token", "--user", "bob", "--data", str(tmp_path)])
        assert refused.exit_code == 2
        assert "make up" in refused.output

    def test_of_a_stranger_is_refused(self) -> None:
        assert CliRunner().invoke(app, ["token", "--user", "mallory"]).exit_code == 2


class TestCertificates:
    def test_are_made_for_each_service_and_kept(self, tmp_path: Path) -> None:
        command = ["certificates", "--folder", str(tmp_path / "tls")]
        first = CliRunner().invoke(app, command)
        assert first.exit_code == 0
        names = ["authority", "bank", "card", "analytics", "identity", "gateway"]
        assert [line.split(", ")[0] for line in first.output.splitlines()] == [f"{name}: made" for name in names]
        again = CliRunner().invoke(app, command)
        assert again.output == first.output.replace(": made", ": kept")
        more = CliRunner().invoke(app, [*command, "--name", "bank", "--name", "wallet.example"])
        assert [line.split(", ")[0] for line in more.output.splitlines()] == [
            "authority: kept",
            "bank: kept",
            "wallet.example: made",
        ]

    def test_for_what_is_no_host_are_refused(self, tmp_path: Path) -> None:
        refused = CliRunner().invoke(app, ["certificates", "--folder", str(tmp_path), "--name", "../bank"])
        assert refused.exit_code == 2
        assert "is no name for a service" in refused.output


class TestIntegrity:
    async def test_asks_the_services_of_the_stack_on_this_port_one_after_the_other(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        asked = []
        tokens = set()

        def follow(admin: Admin, name: str = "") -> Proven:
            asked.append((name, admin.url))
            tokens.add(admin.token)
            return Proven.BROKEN if name == "bank" else Proven.NOT

        monkeypatch.setattr(main, "follow", follow)
        pair = key_pair(tmp_path / "keys", "development")
        of_stack = ["integrity", "--port", "8010", "--data", str(tmp_path)]
        assert CliRunner().invoke(app, of_stack).exit_code == 1
        (token,) = tokens
        verifier = Verifier(ISSUER, {ISSUER: KeySet.fixed(pair.public.read_text())}, AUDIENCE)
        assert (await verifier.verify(token)).roles == frozenset({Role.ADMIN})
        assert asked == [
            ("bank", "http://127.0.0.1:9111"),
            ("card", "http://127.0.0.1:9112"),
            ("analytics", "http://127.0.0.1:9113"),
        ]

    def test_asks_one_service_alone_where_its_address_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def follow(admin: Admin) -> Proven:
            asked.append(admin)
            return Proven.NOT

        monkeypatch.setattr(main, "follow", follow)
        there = ["integrity", "--admin", "http://bank:9101/"]
        assert CliRunner().invoke(app, there).exit_code == 2
        assert CliRunner().invoke(app, there, env={"WALLET_TOKEN": "told"}).exit_code == 2
        assert asked == [Admin("http://bank:9101"), Admin("http://bank:9101", "told")]

    def test_without_a_stack_or_a_token_says_what_to_do(self, tmp_path: Path) -> None:
        refused = CliRunner().invoke(app, ["integrity", "--data", str(tmp_path)])
        assert refused.exit_code == 2
        assert "make up" in refused.output

    def test_of_a_port_that_no_stack_can_have_is_refused(self) -> None:
        assert CliRunner().invoke(app, ["integrity", "--port", "80"]).exit_code == 2

    @pytest.mark.parametrize(
        ("proofs", "together"),
        [
            ((Proven.SOUND, Proven.SOUND), Proven.SOUND),
            ((Proven.SOUND, Proven.NOT), Proven.NOT),
            ((Proven.NOT, Proven.BROKEN), Proven.BROKEN),
            ((Proven.BROKEN, Proven.SOUND), Proven.BROKEN),
        ],
    )
    def test_several_proofs_are_worth_the_worst_of_them(self, proofs: tuple[Proven, ...], together: Proven) -> None:
        assert worst(proofs) is together


class TestReplay:
    def test_asks_analytics_of_the_stack_on_this_port(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def run_replay(admin: Admin, account: UUID | None, *, all_operations: bool) -> Replayed:
            asked.append((admin, account, all_operations))
            return Replayed.INCOMPLETE

        monkeypatch.setattr(main, "run_replay", run_replay)
        account = str(OWNERS["alice"].account)
        assert CliRunner().invoke(app, ["replay", "--port", "8010", "--token", "t"]).exit_code == 1
        one = ["replay", "--admin", "http://analytics:9103/", "--account", account, "--all-operations"]
        assert CliRunner().invoke(app, one).exit_code == 1
        assert asked == [
            (Admin("http://127.0.0.1:9113", "t"), None, False),
            (Admin("http://analytics:9103"), UUID(account), True),
        ]

    def test_of_what_is_no_account_id_is_refused(self) -> None:
        assert CliRunner().invoke(app, ["replay", "--account", "alice"]).exit_code == 2


class TestTopUps:
    def test_are_listed_and_tried_again_where_the_stack_is_or_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[object, ...]] = []

        def review(admin: Admin) -> Reviewed:
            asked.append((admin,))
            return Reviewed.SOMETHING

        def retry(admin: Admin, top_up_id: UUID) -> Reviewed:
            asked.append((admin, top_up_id))
            return Reviewed.NOTHING

        monkeypatch.setattr(main, "review", review)
        monkeypatch.setattr(main, "retry_top_up", retry)
        assert CliRunner().invoke(app, ["topups", "review", "--port", "8010", "--token", "t"]).exit_code == 1
        there = ["topups", "review", "--admin", "http://card:9102/", "--retry", str(UUID(int=1))]
        assert CliRunner().invoke(app, there).exit_code == 0
        assert asked == [(Admin("http://127.0.0.1:9112", "t"),), (Admin("http://card:9102"), UUID(int=1))]
