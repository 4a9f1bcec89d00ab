"""What a person sees: progress, and every child's output under its name. The same goes to a log file a child."""

import sys
from pathlib import Path
from typing import TextIO

COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # one for each name in order of appearance, never red
WIDTH = 10
LARGEST_LOG = 10 * 2**20  # a log that has grown beyond it makes room at the next start; one older file is kept


class Console:
    """Writes to a terminal, or plainly to anything else, or (`screen=None`) to the log files only."""

    def __init__(self, logs: Path, screen: TextIO | None = sys.stdout) -> None:
        """Appends to `logs`/<name>.log, made when a child first says something."""
        self._logs = logs
        self._screen = screen
        self._coloured = screen is not None and screen.isatty()
        self._files: dict[str, TextIO] = {}

    def say(self, text: str) -> None:
        """The stack's own words."""
        if self._screen:
            try:
                print(text, file=self._screen, flush=True)
            except OSError:
                self._screen = None  # the terminal is gone; what it would have shown must not stop the stack

    def output(self, name: str, line: str) -> None:
        """One line that the child `name` wrote."""
        file = self._files.get(name) or self._open(name)
        print(line, file=file, flush=True)
        self.say(f"{self._label(name)} {line}")

    def close(self) -> None:
        """Closes the log files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _label(self, name: str) -> str:
        label = f"{name:<{WIDTH}} |"
        if not self._coloured:
            return label
        return f"\033[{COLOURS[list(self._files).index(name) % len(COLOURS)]}m{label}\033[0m"

    def _open(self, name: str) -> TextIO:
        path = self._logs / f"{name}.log"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LARGEST_LOG:
            path.replace(path.with_suffix(".log.1"))
        file = self._files[name] = path.open("a", encoding="utf-8")
        return file
