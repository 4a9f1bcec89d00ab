"""Progress messages for the person at the terminal."""

import sys


def print_progress(text: str) -> None:
    """Print a line to standard error at once. Standard output holds results only."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
