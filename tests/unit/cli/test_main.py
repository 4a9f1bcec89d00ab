"""Command-line options, exit codes and messages of `wallet`."""

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
from cli.admin_client import AdminEndpoint
from cli.integrity import IntegrityResult, worst_result
from cli.main import app
from cli.options import parse_block
from cli.replay import ReplayResult
from cli.status import OverallState
from cli.tokens import NoTokenError, SeedUser, development_token
from cli.topups import ReviewResult
from provisioning.keys import ensure_secret
from provisioning.seed import CUSTOMERS
from stack.plan import PASSWORD
from stack.ports import free_ports
from stack.running import registered
from stack.system import lock_data_folder
from subgraphs.card.service.domain.declines import LimitKind


@pytest.fixture(autouse=True)
def registry(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other system of this machine is found."""
    folder = str(tmp_path_factory.mktemp("registry"))
    monkeypatch.setattr("stack.running.tempfile.gettempdir", lambda: folder)


@pytest.fixture
def running_stack(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a stack on port 8010 that seems to run."""
    with lock_data_folder(tmp_path), registered(tmp_path, 8010):
        yield tmp_path


class FakeGateway:
    """HTTP server that records logins and sends a fixed response."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.response: tuple[int, Any] = (200, {"accessToken": "the token"})
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                gateway.requests.append((self.path, json.loads(body)))
                self.send_response(gateway.response[0])
                self.end_headers()
                self.wfile.write(json.dumps(gateway.response[1]).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def fake_gateway() -> Iterator[FakeGateway]:
    gateway = FakeGateway()
    thread = Thread(target=gateway.server.serve_forever, args=(0.01,))
    thread.start()
    yield gateway
    gateway.server.shutdown()
    thread.join()
    gateway.server.server_close()


class TestToken:
    def test_token_comes_from_a_login(self, tmp_path: Path, fake_gateway: FakeGateway) -> None:
        password = ensure_secret(tmp_path / "keys", PASSWORD)
        assert development_token(SeedUser.ALICE, tmp_path, fake_gateway.url) == "the token"
        assert fake_gateway.requests == [("/auth/login", {"username": "alice", "password": password})]

    @pytest.mark.parametrize("response", [[], {}, "text", None])
    def test_response_of_another_program_is_reported(
        self, fake_gateway: FakeGateway, tmp_path: Path, response: object
    ) -> None:
        ensure_secret(tmp_path / "keys", PASSWORD)
        for status in (200, 500):
            fake_gateway.response = (status, response)
            with pytest.raises(NoTokenError, match=r"no wallet responds at|refuses the login"):
                development_token(SeedUser.BOB, tmp_path, fake_gateway.url)

    def test_refused_login_shows_the_reason_without_the_password(
        self, tmp_path: Path, fake_gateway: FakeGateway
    ) -> None:
        password = ensure_secret(tmp_path / "keys", PASSWORD)
        fake_gateway.response = (429, {"detail": "too many attempts; try again in 4 s"})
        with pytest.raises(NoTokenError, match="refuses the login of bob: too many attempts; try again in 4") as caught:
            development_token(SeedUser.BOB, tmp_path, fake_gateway.url)
        assert password not in str(caught.value)

    def test_missing_stack_is_explained(self, tmp_path: Path) -> None:
        refused = CliRunner().invoke(app, ["token"])
        assert refused.exit_code == 2
        assert "no wallet runs on this machine: start one with `make up`" in refused.output
        port = free_ports(1)[0] % 10_000 + 10_000
        with lock_data_folder(tmp_path), registered(tmp_path, port):
            refused = CliRunner().invoke(app, ["token"])
            assert refused.exit_code == 2
            assert "there is no development password" in refused.output
            ensure_secret(tmp_path / "keys", PASSWORD)
            refused = CliRunner().invoke(app, ["token"])
            assert refused.exit_code == 2
            assert f"no wallet responds at http://127.0.0.1:{port}" in refused.output

    def test_wrong_port_or_folder_is_explained_with_the_running_stack(self, running_stack: Path) -> None:
        for wrong in (["--port", "8020"], ["--data", "elsewhere"], ["--data", "elsewhere", "--port", "8010"]):
            refused = CliRunner().invoke(app, ["token", *wrong])
            assert refused.exit_code == 2
            assert f"PORT=8010 DATA={running_stack}" in refused.output.replace("\n", "")

    def test_one_of_several_stacks_has_to_be_named(self, running_stack: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        with lock_data_folder(other), registered(other, 8020):
            refused = CliRunner().invoke(app, ["token"])
            assert refused.exit_code == 2
            assert "several wallets run" in refused.output
            assert "there is no development password" in CliRunner().invoke(app, ["token", "--port", "8020"]).output
        assert "there is no development password" in CliRunner().invoke(app, ["token"]).output
        assert running_stack.exists()

    def test_stack_that_was_killed_is_not_found(self, tmp_path: Path) -> None:
        with registered(tmp_path, 8010):  # without the lock, which ends with its process
            assert "no wallet runs on this machine" in CliRunner().invoke(app, ["token"]).output

    def test_unknown_user_is_refused(self) -> None:
        assert CliRunner().invoke(app, ["token", "--user", "mallory"]).exit_code == 2


class TestOptions:
    @pytest.mark.parametrize(
        ("command", "message"),
        [
            ("topups review --retry nope", "'nope' is not an id: write a UUID such as 01a1"),
            ("replay --account nope", "'nope' is not an id: write a UUID such as 01a1"),
            ("topups review --admin 127.0.0.1:10411", "is not an admin address: write a URL such as http://127.0.0.1"),
            ("integrity --admin ftp://card:9102", "is not an admin address: write a URL such as http://127.0.0.1"),
            ("ledger epoch --admin http://bank:99999", "is not an admin address: write a URL such as http://127.0.0.1"),
            ("status --admin bank=bank:9101", "is not an admin address: write a URL such as http://127.0.0.1"),
            ("token --user zed", "there is no seeded user 'zed': choose one of alice, bob, operator, admin"),
            ("topups declines --lift foo", "is not the id of a block: write one from the list of `wallet topups"),
            ("topups declines --lift foo/01a1fe03-284b-738c-94f7-1a15f0c9e352", "is not the id of a block"),
            ("topups declines --lift card/7", "is not the id of a block"),
            ("status --port abc", "'abc' is not a port: write a number such as 8000"),
        ],
    )
    def test_invalid_value_is_refused_with_what_to_write(self, command: str, message: str) -> None:
        refused = CliRunner().invoke(app, command.split(), env={"COLUMNS": "400"})
        assert refused.exit_code == 2
        assert message in refused.output

    def test_blocks_of_all_limits_can_be_lifted(self) -> None:
        for kind in LimitKind:
            assert parse_block(f"{kind}/{UUID(int=1)}") == f"{kind}/{UUID(int=1)}"


class TestCertificates:
    def test_certificates_are_created_once_per_service(self, tmp_path: Path) -> None:
        command = ["certificates", "--folder", str(tmp_path / "tls")]
        first = CliRunner().invoke(app, command)
        assert first.exit_code == 0
        names = ["authority", "bank", "card", "analytics", "identity", "gateway"]
        assert [line.split(", ")[0] for line in first.output.splitlines()] == [f"{name}: created" for name in names]
        again = CliRunner().invoke(app, command)
        assert again.output == first.output.replace(": created", ": kept")
        more = CliRunner().invoke(app, [*command, "--name", "bank", "--name", "wallet.example"])
        assert [line.split(", ")[0] for line in more.output.splitlines()] == [
            "authority: kept",
            "bank: kept",
            "wallet.example: created",
        ]

    def test_invalid_host_name_is_refused(self, tmp_path: Path) -> None:
        refused = CliRunner().invoke(app, ["certificates", "--folder", str(tmp_path), "--name", "../bank"])
        assert refused.exit_code == 2
        assert "is not a valid service name" in refused.output


class TestStatus:
    def test_status_queries_the_stack_or_the_named_services(
        self, monkeypatch: pytest.MonkeyPatch, running_stack: Path
    ) -> None:
        calls: list[tuple[Mapping[str, str], bool]] = []

        def show(admins: Mapping[str, str], *, as_json: bool) -> OverallState:
            calls.append((admins, as_json))
            return OverallState.NOT_READY

        monkeypatch.setattr(main, "show_status", show)
        assert CliRunner().invoke(app, ["status", "--port", "8010"]).exit_code == 1
        there = ["status", "--admin", "bank=http://bank:9101", "--admin", "card=http://card:9102", "--json"]
        assert CliRunner().invoke(app, there).exit_code == 1
        here = {"gateway": 9110, "bank": 9111, "card": 9112, "analytics": 9113, "identity": 9114}
        assert calls == [
            ({name: f"http://127.0.0.1:{port}" for name, port in here.items()}, False),
            ({"bank": "http://bank:9101", "card": "http://card:9102"}, True),
        ]

    def test_admin_address_without_name_is_refused(self) -> None:
        refused = CliRunner().invoke(app, ["status", "--admin", "http://bank:9101"])
        assert refused.exit_code == 2
        assert "bank=http://" in refused.output


class TestIntegrity:
    def test_integrity_checks_all_services_of_the_stack(
        self, monkeypatch: pytest.MonkeyPatch, running_stack: Path
    ) -> None:
        calls = []
        tokens = set()

        def log_in(*arguments: object) -> str:
            assert arguments == (SeedUser.ADMIN, running_stack, "http://127.0.0.1:8010")
            return "an admin's"

        def check_integrity(admin: AdminEndpoint, name: str = "") -> IntegrityResult:
            calls.append((name, admin.url))
            tokens.add(admin.token)
            return IntegrityResult.BROKEN if name == "bank" else IntegrityResult.NOT_PROVEN

        monkeypatch.setattr(main, "check_integrity", check_integrity)
        monkeypatch.setattr(main, "development_token", log_in)
        command = ["integrity"]
        assert CliRunner().invoke(app, command).exit_code == 1
        assert tokens == {"an admin's"}
        assert calls == [
            ("bank", "http://127.0.0.1:9111"),
            ("card", "http://127.0.0.1:9112"),
            ("analytics", "http://127.0.0.1:9113"),
        ]

    def test_integrity_checks_only_the_given_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []

        def check_integrity(admin: AdminEndpoint) -> IntegrityResult:
            calls.append(admin)
            return IntegrityResult.NOT_PROVEN

        monkeypatch.setattr(main, "check_integrity", check_integrity)
        there = ["integrity", "--admin", "http://bank:9101/"]
        assert CliRunner().invoke(app, there).exit_code == 2
        assert CliRunner().invoke(app, there, env={"WALLET_TOKEN": "the-token"}).exit_code == 2
        assert calls == [AdminEndpoint("http://bank:9101"), AdminEndpoint("http://bank:9101", "the-token")]

    def test_integrity_without_stack_or_token_is_explained(self, tmp_path: Path) -> None:
        refused = CliRunner().invoke(app, ["integrity", "--data", str(tmp_path)])
        assert refused.exit_code == 2
        assert "make up" in refused.output

    def test_privileged_port_is_refused(self) -> None:
        assert CliRunner().invoke(app, ["integrity", "--port", "80"]).exit_code == 2

    @pytest.mark.parametrize(
        ("results", "worst"),
        [
            ((IntegrityResult.SOUND, IntegrityResult.SOUND), IntegrityResult.SOUND),
            ((IntegrityResult.SOUND, IntegrityResult.NOT_PROVEN), IntegrityResult.NOT_PROVEN),
            ((IntegrityResult.NOT_PROVEN, IntegrityResult.BROKEN), IntegrityResult.BROKEN),
            ((IntegrityResult.BROKEN, IntegrityResult.SOUND), IntegrityResult.BROKEN),
        ],
    )
    def test_worst_result_is_returned(self, results: tuple[IntegrityResult, ...], worst: IntegrityResult) -> None:
        assert worst_result(results) is worst


class TestReplay:
    def test_replay_calls_analytics_of_the_stack_or_the_given_address(
        self, monkeypatch: pytest.MonkeyPatch, running_stack: Path
    ) -> None:
        calls = []

        def replay_history(admin: AdminEndpoint, account: UUID | None, *, all_operations: bool) -> ReplayResult:
            calls.append((admin, account, all_operations))
            return ReplayResult.INCOMPLETE

        monkeypatch.setattr(main, "replay_history", replay_history)
        account = str(CUSTOMERS["alice"].account)
        assert CliRunner().invoke(app, ["replay", "--port", "8010", "--token", "t"]).exit_code == 1
        one = ["replay", "--admin", "http://analytics:9103/", "--account", account, "--all-operations"]
        assert CliRunner().invoke(app, one).exit_code == 1
        assert calls == [
            (AdminEndpoint("http://127.0.0.1:9113", "t"), None, False),
            (AdminEndpoint("http://analytics:9103"), UUID(account), True),
        ]

    def test_invalid_account_id_is_refused(self) -> None:
        assert CliRunner().invoke(app, ["replay", "--account", "alice"]).exit_code == 2


class TestTopUps:
    def test_top_ups_are_listed_and_retried_at_the_stack_or_the_given_address(
        self, monkeypatch: pytest.MonkeyPatch, running_stack: Path
    ) -> None:
        calls: list[tuple[object, ...]] = []

        def list_reviews(admin: AdminEndpoint, *, after_restore: bool) -> ReviewResult:
            calls.append((admin, after_restore))
            return ReviewResult.LIST_NOT_EMPTY

        def retry_top_up(admin: AdminEndpoint, top_up_id: UUID) -> ReviewResult:
            calls.append((admin, top_up_id))
            return ReviewResult.LIST_EMPTY

        monkeypatch.setattr(main, "list_reviews", list_reviews)
        monkeypatch.setattr(main, "retry_top_up", retry_top_up)
        assert CliRunner().invoke(app, ["topups", "review", "--port", "8010", "--token", "t"]).exit_code == 1
        restored = ["topups", "review", "--port", "8010", "--token", "t", "--after-restore"]
        assert CliRunner().invoke(app, restored).exit_code == 1
        there = ["topups", "review", "--admin", "http://card:9102/", "--retry", str(UUID(int=1))]
        assert CliRunner().invoke(app, there).exit_code == 0
        assert calls == [
            (AdminEndpoint("http://127.0.0.1:9112", "t"), False),
            (AdminEndpoint("http://127.0.0.1:9112", "t"), True),
            (AdminEndpoint("http://card:9102"), UUID(int=1)),
        ]

    def test_decline_blocks_are_listed_and_lifted_at_the_stack_or_the_given_address(
        self, monkeypatch: pytest.MonkeyPatch, running_stack: Path
    ) -> None:
        calls: list[tuple[object, ...]] = []

        def list_blocks(admin: AdminEndpoint) -> ReviewResult:
            calls.append((admin,))
            return ReviewResult.LIST_NOT_EMPTY

        def lift_block(admin: AdminEndpoint, block_id: str) -> ReviewResult:
            calls.append((admin, block_id))
            return ReviewResult.LIST_EMPTY

        monkeypatch.setattr(main, "list_blocks", list_blocks)
        monkeypatch.setattr(main, "lift_block", lift_block)
        assert CliRunner().invoke(app, ["topups", "declines", "--port", "8010", "--token", "t"]).exit_code == 1
        there = ["topups", "declines", "--admin", "http://card:9102/", "--lift", f"customer/{UUID(int=1)}"]
        assert CliRunner().invoke(app, there).exit_code == 0
        assert calls == [
            (AdminEndpoint("http://127.0.0.1:9112", "t"),),
            (AdminEndpoint("http://card:9102"), f"customer/{UUID(int=1)}"),
        ]
