"""Command line of the load tests, and the command line of Locust."""

from pathlib import Path

import pytest

from loadtests.__main__ import create_parser
from loadtests.plan import Customer, Plan
from loadtests.run import locust_command
from loadtests.scenarios import NAMES


class TestParser:
    @pytest.mark.parametrize(("text", "seconds"), [("15", 15), ("90s", 90), ("5m", 300), ("0.5h", 1800)])
    def test_time_accepts_units(self, text: str, seconds: float) -> None:
        assert create_parser().parse_args(["--time", text]).time == seconds

    @pytest.mark.parametrize("text", ["0", "-1", "25h", "soon"])
    def test_time_rejects_invalid_durations(self, text: str) -> None:
        with pytest.raises(SystemExit):
            create_parser().parse_args(["--time", text])

    def test_scenario_accepts_several_names_or_all(self) -> None:
        assert create_parser().parse_args(["--scenario", "rest,reads"]).scenario == "rest,reads"
        assert create_parser().parse_args(["--scenario", "all"]).scenario == ",".join(NAMES)

    def test_scenario_rejects_unknown_names(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            create_parser().parse_args(["--scenario", "rest,soap"])
        assert "unknown: soap; choose from rest" in capsys.readouterr().err


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
