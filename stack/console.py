"""Terminal output of the stack: its own progress messages, and the output of each child, also in a log file."""

import sys
from pathlib import Path
from typing import TextIO

COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)  # ANSI codes, in order of first output; no red
WIDTH = 10
LARGEST_LOG = 10 * 2**20  # larger logs are rotated at the next start; one old file is kept


class Console:
    """Shows progress and child output on `screen`, in colours on a terminal. `screen=None` shows nothing."""

    def __init__(self, logs: Path, screen: TextIO | None = sys.stdout) -> None:
        """Append each child's output to `logs`/<name>.log, even if nothing is shown."""
        self._logs = logs
        self._screen = screen
        self._coloured = screen is not None and screen.isatty()
        self._files: dict[str, TextIO] = {}

    def show(self, text: str) -> None:
        """Show a progress message. It is in no log file."""
        if self._screen:
            try:
                print(text, file=self._screen, flush=True)
            except OSError:
                self._screen = None  # a closed terminal must not stop the stack

    def output(self, name: str, line: str) -> None:
        """Show and log one output line of the child `name`."""
        file = self._files.get(name) or self._open(name)
        print(line, file=file, flush=True)
        self.show(f"{self._label(name)} {line}")

    def close(self) -> None:
        """Close the log files."""
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
