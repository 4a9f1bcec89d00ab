"""Command line of the load tests, and the command line of Locust."""

from pathlib import Path

import pytest

from loadtests.__main__ import create_parser, parse_arguments
from loadtests.plan import Customer, Plan
from loadtests.run import locust_command
from loadtests.scenarios import NAMES


class TestParser:
    @pytest.mark.parametrize(("text", "seconds"), [("15", 15), ("90s", 90), ("5m", 300), ("0.5h", 1800)])
    def test_time_accepts_units(self, text: str, seconds: float) -> None:
        assert create_parser().parse_args(["--time", text]).time == seconds

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            *(
                (f"--time {text}", "must be a time such as 90s, 5m or 2h")
                for text in ("0", "-1", "25h", "soon", "nan", "1e3")
            ),
            *((f"--users {text}", "must be a whole number, at least 1") for text in ("0", "-1", "2.5", "many")),
            *((f"--rate {text}", "must be a number more than 0") for text in ("0", "-1", "nan", "inf", "fast")),
            ("--customers 1", "must be a whole number, at least 2"),
            ("--processes 0", "must be a whole number, from 1 to 64"),
            ("--port 70000", "choose one from"),
            ("--port 0", "must be a whole number, at least 1"),
            *(
                (f"--host {text}", "must be a URL")
                for text in ("localhost:80", "ftp://a", "http://", "http://a:b", "http://[")
            ),
            *(
                (f"--host http://a --bank {text}", "must be an address with a port")
                for text in ("bank", ":1", "bank:0", "bank:x", "bank:99999", "::1:50051", "[::1]")
            ),
            ("--host http://a --ledger mysql://a/b", "must be a URL such as postgresql://"),
            ("--shape square", "invalid choice"),
            ("--bank a:1", "name its gateway with --host"),
            ("--ledger postgresql://a/b", "name its gateway with --host"),
            ("--host http://a --scenario rest,grpc", "name its gRPC target with --bank"),
        ],
    )
    def test_invalid_option_is_refused_with_exit_code_2(
        self, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            parse_arguments(arguments.split())
        assert caught.value.code == 2
        assert message in capsys.readouterr().err

    def test_password_of_an_invalid_ledger_is_not_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse_arguments(["--host", "http://a", "--ledger", "jdbc:postgresql://u:hidden@a/b"])
        assert "hidden" not in capsys.readouterr().err

    def test_slash_at_the_end_of_the_host_is_removed(self) -> None:
        assert parse_arguments(["--host", "https://wallet.example/"]).host == "https://wallet.example"

    @pytest.mark.parametrize("target", ["[::1]:50051", "bank:50051", "dns:///bank:50051", "ipv4:127.0.0.1:50051"])
    def test_ipv6_and_grpc_targets_are_accepted(self, target: str) -> None:
        arguments = parse_arguments(["--host", "http://[::1]:8000", "--bank", target])
        assert (arguments.host, arguments.bank) == ("http://[::1]:8000", target)

    def test_scenario_accepts_several_names_or_all(self) -> None:
        assert create_parser().parse_args(["--scenario", "rest,reads"]).scenario == "rest,reads"
        assert create_parser().parse_args(["--scenario", "all"]).scenario == ",".join(NAMES)

    @pytest.mark.parametrize(("arguments", "seed"), [([], None), (["--seed", "0"], 0), (["--seed", "708209"], 708209)])
    def test_seed_is_optional(self, arguments: list[str], seed: int | None) -> None:
        assert parse_arguments(arguments).seed == seed

    def test_scenario_rejects_unknown_names(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            create_parser().parse_args(["--scenario", "rest,soap"])
        assert "unknown scenario: soap; choose from rest" in capsys.readouterr().err


class TestLocustCommand:
    def test_headless_command_has_users_run_time_and_processes(self, tmp_path: Path) -> None:
        command = locust_command(Plan(host="http://127.0.0.1:1", users=7, seconds=9, processes=2), tmp_path)
        assert "--headless" in command
        for option, value in (("--users", "7"), ("--run-time", "9s"), ("--processes", "2")):
            assert command[command.index(option) + 1] == value

    def test_web_interface_listens_on_loopback_only(self, tmp_path: Path) -> None:
        command = locust_command(Plan(host="http://127.0.0.1:1"), tmp_path, web_port=8089)
        assert command[command.index("--web-host") + 1] == "127.0.0.1"
        assert "--headless" not in command


def test_written_plan_is_read_back_and_its_folder_is_private(tmp_path: Path) -> None:
    plan = Plan(host="http://127.0.0.1:1", scenarios=["rest"], customers=[Customer("s", "p", "t", "a")])
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    assert tmp_path.stat().st_mode & 0o077 == 0
