"""Progress messages for the person at the terminal."""

import sys
from typing import Final

_ERASE: Final = "\r\033[K"  # removes the last line of `show_elapsed`


def print_progress(text: str) -> None:
    """Print a line to standard error at once. Standard output holds results only."""
    sys.stderr.write(f"{_ERASE if sys.stderr.isatty() else ''}{text}\n")
    sys.stderr.flush()


def show_elapsed(seconds: int, total: float) -> None:
    """Show how much of a run is over: every second on a terminal, in its last line; elsewhere a line every 15 s."""
    text = f"{seconds} of {total:g} s"
    if sys.stderr.isatty():
        sys.stderr.write(f"{_ERASE}{text}")
        sys.stderr.flush()
    elif seconds and seconds % 15 == 0:
        print_progress(text)
