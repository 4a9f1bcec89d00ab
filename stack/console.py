"""Terminal output of the stack: its own progress messages, and warnings of its children. All their output is in files.

`show` and `output` neither raise nor block. While a terminal is closed or stopped, or a disk is full, lines are delayed
or lost, and the stack continues.
"""

import contextlib
import os
import re
import shutil
import sys
from enum import Enum
from pathlib import Path
from typing import TextIO

from kit.telemetry.log_sink import LogSink

COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # ANSI codes, in the order in which children first print; no red
WIDTH = 10
_LINE_UP = "\033[1A"
_ERASE_LINE_ABOVE = f"{_LINE_UP}\r\033[K"
_WARNING = re.compile(r"\[(?:warning|error|critical) *\]| (?:WARNING|ERROR|FATAL|PANIC): ")  # ours, and PostgreSQL's
LARGEST_LOG = 10 * 2**20  # bytes; a larger log file is rotated
OLD_LOGS = 3  # old files that are kept, the newest as `.log.1`
CHECK_BYTES = 256 * 1024  # written bytes after which the size of a log file is checked
CLOSE_TIMEOUT = 1.0  # seconds; maximum wait until queued lines are written


class Lines(Enum):
    """Lines of the children that are shown."""

    ALL = "all"
    WARNINGS = "warnings"
    """Warnings and errors of the children in `Console.watched`."""
    NONE = "none"


class Console:
    """Shows progress and lines of the children on `screen`, in colours on a terminal. `screen=None` shows nothing.

    Attributes:
        watched: names of the children whose warnings are shown. While a child starts or stops, it warns that it cannot
            reach the others, which is no news.
    """

    def __init__(self, logs: Path, screen: TextIO | None = sys.stdout, lines: Lines = Lines.WARNINGS) -> None:
        """Append each child's output to `logs`/<name>.log, even if nothing is shown."""
        self.watched: set[str] = set()
        self._logs = logs
        self._screen = None if screen is None else LogSink(os.dup(screen.fileno()), _describe_loss)
        self._is_terminal = screen is not None and screen.isatty()
        self._lines = lines
        self._status = ""  # last line on the terminal
        self._files: dict[str, _LogFile] = {}
        self._names: list[str] = []

    def show(self, text: str) -> None:
        """Show a progress message. It is not written to a log file."""
        self._write(text)

    def update(self, status: str) -> None:
        """Change the last line on the terminal, which is below all messages; an empty line removes it.

        Elsewhere, such as in a file, nothing is shown.
        """
        if self._is_terminal and status != self._status:
            self._write(None, status)

    def log_file(self, name: str) -> Path:
        """Return the log file of a child."""
        return self._logs / f"{name}.log"

    def output(self, name: str, line: str) -> None:
        """Log one output line of the child `name`, and show it if it is one of those to show."""
        file = self._files.get(name) or self._open(name)
        if file is not None:
            file.write(line.encode(errors="backslashreplace"))
        if self._lines is Lines.ALL or (
            self._lines is Lines.WARNINGS and name in self.watched and _WARNING.search(line)
        ):
            self.show(f"{self._label(name)} {line}")

    def _write(self, text: str | None, status: str | None = None) -> None:
        """Write a message in the place of the last line, and the last line, unchanged or new, below it."""
        if self._screen is None:
            return
        erase = _ERASE_LINE_ABOVE if self._status else ""
        if status is not None:
            self._status = status[: shutil.get_terminal_size().columns - 1]
        lines = [line for line in (text, self._status or None) if line is not None]
        # The sink ends each write with a line end, so the last line is above the cursor.
        written = erase + ("\n".join(lines) if lines else _LINE_UP)
        self._screen.write(written.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Wait until all lines are written, at most a second for the screen and for each file."""
        for sink in self._sinks():
            sink.flush(CLOSE_TIMEOUT)

    def close(self) -> None:
        """Write the last lines and close the log files."""
        for sink in self._sinks():
            sink.close(CLOSE_TIMEOUT)
        self._files.clear()

    def _sinks(self) -> list[LogSink]:
        screen = [] if self._screen is None else [self._screen]
        return [*screen, *(file.sink for file in self._files.values())]

    def _label(self, name: str) -> str:
        label = f"{name:<{WIDTH}} |"
        if not self._is_terminal:
            return label
        if name not in self._names:
            self._names.append(name)
        return f"\033[{COLOURS[self._names.index(name) % len(COLOURS)]}m{label}\033[0m"

    def _open(self, name: str) -> "_LogFile | None":
        """Open and return the log file of a child. Return None if it cannot be opened; the next line tries again."""
        try:
            file = self._files[name] = _LogFile(self.log_file(name))
        except OSError:
            return None
        return file


class _LogFile:
    """Log file of a child. A file that is too large is renamed to `.log.1`, and a new one takes its place."""

    def __init__(self, path: Path) -> None:
        """Open the file to append to it.

        Raises:
            OSError: the file cannot be opened.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._descriptor = _open_to_append(path)
        self._unchecked_bytes = 0
        self.sink = LogSink(self._descriptor, _describe_loss)
        self._rotate_if_large()

    def write(self, line: bytes) -> None:
        """Queue a line, which the sink's thread writes."""
        self.sink.write(line)
        self._unchecked_bytes += len(line) + 1
        if self._unchecked_bytes >= CHECK_BYTES:
            self._rotate_if_large()

    def _rotate_if_large(self) -> None:
        """Rotate the file if it is too large. If that fails, the log continues in this file until the next check."""
        self._unchecked_bytes = 0
        with contextlib.suppress(OSError):
            if os.fstat(self._descriptor).st_size <= LARGEST_LOG:
                return
            new = self._path.with_name(f"{self._path.name}.new")
            descriptor = _open_to_append(new)  # before the renames, so that a full disk changes nothing
            try:
                for number in range(OLD_LOGS, 0, -1):
                    younger = self._old(number - 1)
                    if younger.exists():
                        younger.replace(self._old(number))
                new.replace(self._path)
                os.dup2(descriptor, self._descriptor, inheritable=False)  # the sink's thread continues in the new file
            finally:
                os.close(descriptor)

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _open_to_append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def _describe_loss(lost: int) -> bytes:
    return b"... %d lines were lost, because they could not be written" % lost
