"""The operator's commands."""

import json
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from cli import main
from cli.integrity import Proven, worst
from cli.main import app
from cli.replay import Replayed
from cli.reports import Admin
from cli.status import Overall
from cli.tokens import NoTokenError, SeedUser, development_token
from cli.topups import Reviewed
from provisioning.keys import secret
from provisioning.seed import OWNERS
from stack.plan import PASSWORD
from stack.ports import free_ports


class FrontDoor:
    """A gateway that notes what it is asked, and answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.answer: tuple[int, Any] = (200, {"accessToken": "the token"})
        door = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                door.asked.append((self.path, json.loads(body)))
                self.send_response(door.answer[0])
                self.end_headers()
                self.wfile.write(json.dumps(door.answer[1]).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def front_door() -> Iterator[FrontDoor]:
    door = FrontDoor()
    thread = Thread(target=door.server.serve_forever)
    thread.start()
    yield door
    door.server.shutdown()
    thread.join()
    door.server.server_close()


class TestToken:
    def test_is_what_signing_in_gives(self, tmp_path: Path, front_door: FrontDoor) -> None:
        password = secret(tmp_path / "keys", PASSWORD)
        assert development_token(SeedUser.ALICE, tmp_path, front_door.url) == "the token"
        assert front_door.asked == [("/auth/login", {"username": "alice", "password": password})]

    def test_that_is_refused_says_why_and_no_password(self, tmp_path: Path, front_door: FrontDoor) -> None:
        password = secret(tmp_path / "keys", PASSWORD)
        front_door.answer = (429, {"detail": "too many attempts; try again in 4 seconds"})
        with pytest.raises(NoTokenError, match="does not let bob in: too many attempts; try again in 4") as caught:
            development_token(SeedUser.BOB, tmp_path, front_door.url)
        assert password not in str(caught.value)

    def test_without_a_stack_says_what_to_do(self, tmp_path: Path) -> None:
        token = ["token", "--user", "bob", "--data", str(tmp_path), "--port", str(free_ports(1)[0] % 10_000 + 10_000)]
        refused = CliRunner().invoke(app, token)
        assert refused.exit_code == 2
        assert "there is no development password" in refused.output
        secret(tmp_path / "keys", PASSWORD)
        refused = CliRunner().invoke(app, token)
        assert refused.exit_code == 2
        assert "does not answer as the wallet: run `make up` first" in refused.output

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


class TestStatus:
    def test_asks_every_service_of_the_stack_or_those_that_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[Mapping[str, str], bool]] = []

        def show(admins: Mapping[str, str], *, as_json: bool) -> Overall:
            asked.append((admins, as_json))
            return Overall.NOT_READY

        monkeypatch.setattr(main, "show_status", show)
        assert CliRunner().invoke(app, ["status", "--port", "8010"]).exit_code == 1
        there = ["status", "--admin", "bank=http://bank:9101", "--admin", "card=http://card:9102", "--json"]
        assert CliRunner().invoke(app, there).exit_code == 1
        here = {"gateway": 9110, "bank": 9111, "card": 9112, "analytics": 9113, "identity": 9114}
        assert asked == [
            ({name: f"http://127.0.0.1:{port}" for name, port in here.items()}, False),
            ({"bank": "http://bank:9101", "card": "http://card:9102"}, True),
        ]

    def test_of_an_address_without_a_name_is_refused(self) -> None:
        refused = CliRunner().invoke(app, ["status", "--admin", "http://bank:9101"])
        assert refused.exit_code == 2
        assert "bank=http://" in refused.output


class TestIntegrity:
    def test_asks_the_services_of_the_stack_on_this_port_one_after_the_other(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        asked = []
        tokens = set()

        def sign_in(*given: object) -> str:
            assert given == (SeedUser.ADMIN, tmp_path, "http://127.0.0.1:8010")
            return "an admin's"

        def follow(admin: Admin, name: str = "") -> Proven:
            asked.append((name, admin.url))
            tokens.add(admin.token)
            return Proven.BROKEN if name == "bank" else Proven.NOT

        monkeypatch.setattr(main, "follow", follow)
        monkeypatch.setattr(main, "development_token", sign_in)
        of_stack = ["integrity", "--port", "8010", "--data", str(tmp_path)]
        assert CliRunner().invoke(app, of_stack).exit_code == 1
        assert tokens == {"an admin's"}
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
