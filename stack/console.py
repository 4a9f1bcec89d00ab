"""Terminal output of the stack: its own progress messages, and the output of each child, also in a log file.

Nothing here raises or blocks: a terminal that is closed or stopped, or a full disk, costs lines, and the stack runs on.
"""

import os
import sys
from pathlib import Path
from typing import TextIO

from kit.telemetry.log_sink import LogSink

COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # ANSI codes, in order of first output; no red
WIDTH = 10
LARGEST_LOG = 10 * 2**20  # larger logs are rotated at the next start; one old file is kept
CLOSE_TIMEOUT = 1.0  # seconds in which the last lines are written


class Console:
    """Shows progress and child output on `screen`, in colours on a terminal. `screen=None` shows nothing."""

    def __init__(self, logs: Path, screen: TextIO | None = sys.stdout) -> None:
        """Append each child's output to `logs`/<name>.log, even if nothing is shown."""
        self._logs = logs
        self._screen = None if screen is None else LogSink(os.dup(screen.fileno()), _describe_loss)
        self._coloured = screen is not None and screen.isatty()
        self._files: dict[str, LogSink] = {}
        self._names: list[str] = []

    def show(self, text: str) -> None:
        """Show a progress message. It is in no log file."""
        if self._screen is not None:
            self._screen.write(text.encode(errors="backslashreplace"))

    def output(self, name: str, line: str) -> None:
        """Show and log one output line of the child `name`."""
        file = self._files.get(name) or self._open(name)
        if file is not None:
            file.write(line.encode(errors="backslashreplace"))
        self.show(f"{self._label(name)} {line}")

    def flush(self) -> None:
        """Wait until all lines are written, at most a second for the screen and for each file."""
        for sink in (self._screen, *self._files.values()):
            if sink is not None:
                sink.flush(CLOSE_TIMEOUT)

    def close(self) -> None:
        """Write the last lines and close the log files."""
        for sink in (self._screen, *self._files.values()):
            if sink is not None:
                sink.close(CLOSE_TIMEOUT)
        self._files.clear()

    def _label(self, name: str) -> str:
        label = f"{name:<{WIDTH}} |"
        if not self._coloured:
            return label
        if name not in self._names:
            self._names.append(name)
        return f"\033[{COLOURS[self._names.index(name) % len(COLOURS)]}m{label}\033[0m"

    def _open(self, name: str) -> LogSink | None:
        """Open the log file of a child; None if it cannot be opened now, then the next line tries again."""
        path = self._logs / f"{name}.log"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > LARGEST_LOG:
                path.replace(path.with_suffix(".log.1"))
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError:
            return None
        file = self._files[name] = LogSink(descriptor, _describe_loss)
        return file


def _describe_loss(lost: int) -> bytes:
    return b"... %d lines were lost, because they could not be written" % lost
