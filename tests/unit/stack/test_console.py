import os
import pty
import re
from pathlib import Path

import pytest

from stack import console
from stack.console import LARGEST_LOG, Console, Lines
from tests.full_disk import full_disk


def screen_text(output: str) -> list[str]:
    """Return the lines that a terminal shows after this output, without empty lines at the end."""
    lines, row = [""], 0
    for part in re.findall(r"\033\[1A|\033\[K|\r|\n|[^\033\r\n]+", output):
        match part:
            case "\033[1A":
                row -= 1
            case "\033[K":
                lines[row] = ""
            case "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            case "\r":
                pass
            case text:
                lines[row] = text
    assert row == len([line for line in lines if line])  # the cursor is below the last line
    return [line for line in lines if line]


class TestConsole:
    def test_line_is_prefixed_and_logged_to_a_file(self, tmp_path: Path) -> None:
        with (tmp_path / "screen").open("w") as screen:
            console = Console(tmp_path, screen, Lines.ALL)
        console.output("bank", "listening")
        console.close()
        assert (tmp_path / "screen").read_text() == "bank       | listening\n"
        assert (tmp_path / "bank.log").read_text() == "listening\n"

    def test_names_are_coloured_on_a_terminal_only(self, tmp_path: Path) -> None:
        terminal, screen = pty.openpty()
        with os.fdopen(screen, "w") as file:
            console = Console(tmp_path, file, Lines.ALL)
        console.output("bank", "one")
        console.output("gateway", "two")
        console.close()
        first, second = os.read(terminal, 1_000).decode().splitlines()
        assert first.startswith("\033[")
        assert first.endswith(" one")
        assert first[:5] != second[:5]
        os.close(terminal)
        assert "\033" not in (tmp_path / "bank.log").read_text()

    def test_only_warnings_of_watched_children_are_shown(self, tmp_path: Path) -> None:
        with (tmp_path / "screen").open("w") as screen:
            console = Console(tmp_path, screen)
        warnings = [
            "2026-11-30T22:13:05.1Z [warning  ] circuit state changed [kit.rpc.channel] state=open",
            "2026-11-30T22:13:05.1Z [error    ] unexpected error [gateway.http.middleware]",
            "2026-11-30 22:13:05.1 UTC [29794] ERROR:  relation does not exist",
        ]
        others = [
            "2026-11-30T22:13:05.1Z [info     ] request completed path=/warning",
            "2026-11-30 22:13:05.1 UTC [29794] LOG:  database system is ready",
        ]
        console.output("bank", warnings[0])  # the bank is not watched yet
        console.watched.add("bank")
        for line in (*warnings, *others):
            console.output("bank", line)
        console.close()
        assert (tmp_path / "screen").read_text().splitlines() == [f"bank       | {line}" for line in warnings]
        assert (tmp_path / "bank.log").read_text().splitlines() == [warnings[0], *warnings, *others]

    def test_last_line_stays_below_the_messages_on_a_terminal(self, tmp_path: Path) -> None:
        terminal, screen = pty.openpty()
        with os.fdopen(screen, "w") as file:
            console = Console(tmp_path, file)
        console.update("0 of 2 ready")
        console.show("bank ready")
        console.update("1 of 2 ready")
        console.update("")
        console.show("done")
        console.close()
        assert screen_text(os.read(terminal, 10_000).decode()) == ["bank ready", "done"]
        os.close(terminal)

    def test_last_line_is_not_written_to_a_file(self, tmp_path: Path) -> None:
        with (tmp_path / "screen").open("w") as screen:
            console = Console(tmp_path, screen)
        console.update("0 of 2 ready")
        console.show("bank ready")
        console.close()
        assert (tmp_path / "screen").read_text() == "bank ready\n"

    def test_console_without_screen_only_writes_files(self, tmp_path: Path) -> None:
        console = Console(tmp_path, None)
        console.show("not heard")
        console.output("bank", "kept")
        console.close()
        assert (tmp_path / "bank.log").read_text() == "kept\n"

    def test_large_log_is_rotated(self, tmp_path: Path) -> None:
        (tmp_path / "bank.log").write_bytes(b"x" * (LARGEST_LOG + 1))
        console = Console(tmp_path, None)
        console.output("bank", "new")
        console.close()
        assert (tmp_path / "bank.log").read_text() == "new\n"
        assert (tmp_path / "bank.log.1").stat().st_size == LARGEST_LOG + 1

    def test_log_is_rotated_while_it_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(console, "LARGEST_LOG", 1_000)
        monkeypatch.setattr(console, "CHECK_BYTES", 500)
        output = Console(tmp_path, None)
        lines = [f"{number:099}" for number in range(100)]
        for line in lines:
            output.output("bank", line)
            output.flush()
        output.close()
        names = ["bank.log.3", "bank.log.2", "bank.log.1", "bank.log"]
        assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
        kept = [line for name in names for line in (tmp_path / name).read_text().splitlines()]
        assert kept == lines[-len(kept) :]
        assert len(kept) > 30
        assert all((tmp_path / name).stat().st_size <= 2_000 for name in names)

    def test_log_that_cannot_be_rotated_continues_in_the_same_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(console, "LARGEST_LOG", 10)
        monkeypatch.setattr(console, "CHECK_BYTES", 1)
        (tmp_path / "bank.log.new").mkdir()
        output = Console(tmp_path, None)
        lines = [f"line {number}" for number in range(9)]
        for line in lines:
            output.output("bank", line)
            output.flush()
        (tmp_path / "bank.log.new").rmdir()
        output.output("bank", "after")
        output.output("bank", "in the new file")
        output.close()
        assert (tmp_path / "bank.log.1").read_text().splitlines()[:9] == lines
        assert (tmp_path / "bank.log").read_text().endswith("in the new file\n")

    @pytest.mark.parametrize("terminal", ["closed", "stopped"])
    def test_terminal_that_takes_no_lines_does_not_stop_the_log(self, tmp_path: Path, terminal: str) -> None:
        reader, writer = os.pipe()
        with os.fdopen(writer, "w") as screen:
            console = Console(tmp_path, screen, Lines.ALL)
        if terminal == "closed":
            os.close(reader)
        lines = [f"{number} {'x' * 1_000}" for number in range(200)]
        for line in lines:
            console.output("bank", line)
        console.close()
        if terminal == "stopped":
            os.close(reader)
        assert (tmp_path / "bank.log").read_text().splitlines() == lines

    def test_log_that_cannot_be_opened_is_opened_later(self, tmp_path: Path) -> None:
        (tmp_path / "logs").touch()  # not a folder
        console = Console(tmp_path / "logs", None)
        console.output("bank", "lost")
        (tmp_path / "logs").unlink()
        console.output("bank", "kept")
        console.close()
        assert (tmp_path / "logs" / "bank.log").read_text() == "kept\n"

    def test_full_disk_delays_the_log_only(self, tmp_path: Path) -> None:
        console = Console(tmp_path, None)
        with full_disk(10):
            console.output("bank", "one that does not fit")
            console.output("bank", "two")
            console.flush()
            assert (tmp_path / "bank.log").stat().st_size == 10
        console.close()
        assert (tmp_path / "bank.log").read_text() == "one that does not fit\ntwo\n"
