"""Ends a supervisor's children when the supervisor is gone, however it went.

Run as a script of its own, in a session of its own. The supervisor writes one line for each child to the leash's
standard input: `+PID SIGNAL` takes a child on, `-PID` lets it go. The end of that input is the supervisor's death (or
its orderly exit with nothing left to end): each process group still held gets its signal, newest first, and SIGKILL
after `GRACE` seconds. A pipe closes even after kill -9, on Linux and macOS alike, which no handler in the supervisor
and no parent-death signal across a change of user can promise.
"""

import contextlib
import os
import signal
import sys
import time

GRACE = 5.0  # seconds between a child's own signal and SIGKILL


def alive(pid: int) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end(held: dict[int, int]) -> None:
    """Ends every group in `held` (pid to first signal) and returns when none is left or all got SIGKILL."""
    for pid, first in reversed(held.items()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, first)
    deadline = time.monotonic() + GRACE
    while any(alive(pid) for pid in held) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in held:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def main() -> None:
    """Reads orders until the input ends, then ends what is still held."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    held: dict[int, int] = {}
    for line in sys.stdin:
        words = line.split()
        if line.startswith("+"):
            held[int(words[0])] = int(words[1])
        else:
            held.pop(-int(words[0]), None)
    end(held)


if __name__ == "__main__":
    main()
