"""What a person types, and what Locust is started with."""

from pathlib import Path

import pytest

from loadtests.__main__ import parser
from loadtests.plan import Customer, Plan
from loadtests.run import command
from loadtests.scenarios import NAMES


class TestParser:
    @pytest.mark.parametrize(("text", "seconds"), [("15", 15), ("90s", 90), ("5m", 300), ("0.5h", 1800)])
    def test_reads_times_as_people_write_them(self, text: str, seconds: float) -> None:
        assert parser().parse_args(["--time", text]).time == seconds

    @pytest.mark.parametrize("text", ["0", "-1", "25h", "soon"])
    def test_refuses_what_is_no_time_to_wait(self, text: str) -> None:
        with pytest.raises(SystemExit):
            parser().parse_args(["--time", text])

    def test_takes_several_scenarios_or_all(self) -> None:
        assert parser().parse_args(["--scenario", "rest,reads"]).scenario == "rest,reads"
        assert parser().parse_args(["--scenario", "all"]).scenario == ",".join(NAMES)

    def test_refuses_a_scenario_that_there_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parser().parse_args(["--scenario", "rest,soap"])
        assert "soap: there are rest" in capsys.readouterr().err


class TestCommand:
    def test_ends_by_itself_and_writes_reports(self, tmp_path: Path) -> None:
        line = command(Plan(host="http://127.0.0.1:1", users=7, seconds=9, processes=2), tmp_path)
        assert "--headless" in line
        for option, value in (("--users", "7"), ("--run-time", "9s"), ("--processes", "2")):
            assert line[line.index(option) + 1] == value

    def test_shows_a_page_on_loopback_alone(self, tmp_path: Path) -> None:
        line = command(Plan(host="http://127.0.0.1:1"), tmp_path, web_port=8089)
        assert line[line.index("--web-host") + 1] == "127.0.0.1"
        assert "--headless" not in line


def test_a_plan_is_the_same_for_whoever_reads_it_and_for_nobody_else(tmp_path: Path) -> None:
    plan = Plan(host="http://127.0.0.1:1", scenarios=["rest"], customers=[Customer("s", "p", "t", "a")])
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    assert tmp_path.stat().st_mode & 0o077 == 0
