import contextlib
import io
import os
from pathlib import Path

from stack.console import LARGEST_LOG, Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestConsole:
    def test_line_is_prefixed_and_logged_to_a_file(self, tmp_path: Path) -> None:
        screen = io.StringIO()
        console = Console(tmp_path, screen)
        console.output("bank", "listening")
        console.close()
        assert screen.getvalue() == "bank       | listening\n"
        assert (tmp_path / "bank.log").read_text() == "listening\n"

    def test_names_are_coloured_on_a_terminal_only(self, tmp_path: Path) -> None:
        screen = Terminal()
        console = Console(tmp_path, screen)
        console.output("bank", "one")
        console.output("gateway", "two")
        console.close()
        first, second = screen.getvalue().splitlines()
        assert first.startswith("\033[")
        assert first.endswith(" one")
        assert first[:5] != second[:5]
        assert "\033" not in (tmp_path / "bank.log").read_text()

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

    def test_closed_terminal_does_not_stop_the_log(self, tmp_path: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        screen = os.fdopen(writer, "w")
        console = Console(tmp_path, screen)
        console.output("bank", "one")
        console.output("bank", "two")
        console.close()
        with contextlib.suppress(BrokenPipeError):
            screen.close()
        assert (tmp_path / "bank.log").read_text() == "one\ntwo\n"
