"""Orphan reaper: ends a supervisor's children when the supervisor dies.

Runs as a separate script in its own session. The supervisor writes one line per child to the reaper's standard input:
`+PID SIGNAL` registers a process group, `-PID` removes it. When the input closes, the supervisor has ended: the reaper
sends each registered group its signal, newest first, and SIGKILL after `GRACE` seconds. A pipe closes even after
kill -9, on Linux and macOS. A signal handler in the supervisor does not run after kill -9, and a parent-death signal
does not survive a change of user.
"""

import contextlib
import os
import signal
import sys
import time

GRACE = 5.0  # seconds between a child's own signal and SIGKILL


def is_alive(pid: int) -> bool:
    """Return whether the process group has any process left."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_groups(groups: dict[int, int]) -> None:
    """End the groups in the mapping from group id to first signal; return when none is left or all got SIGKILL."""
    for pid, first in reversed(groups.items()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, first)
    deadline = time.monotonic() + GRACE
    while any(is_alive(pid) for pid in groups) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def main() -> None:
    """Read registrations until the input closes, then end the groups that are still registered."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, int] = {}
    for line in sys.stdin:
        words = line.split()
        if line.startswith("+"):
            groups[int(words[0])] = int(words[1])
        else:
            groups.pop(-int(words[0]), None)
    end_groups(groups)


if __name__ == "__main__":
    main()
