"""Runs a module as a process whose dates are `CLOCK_AHEAD_SECONDS` ahead: `python clock_ahead.py MODULE`.

`time.time` and the clock of PyJWT stay right: gRPC compares the first with a clock that Python cannot replace, and the
tokens of the tests are signed by the right clock.
"""

import datetime as dt
import os
import runpy
import sys

import jwt  # noqa: F401  keeps the clock that it imports

AHEAD = float(os.environ["CLOCK_AHEAD_SECONDS"])
_datetime = dt.datetime


class DatetimeAhead(_datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return _datetime.now(tz) + dt.timedelta(seconds=AHEAD)


if __name__ == "__main__":
    dt.datetime = DatetimeAhead  # type: ignore[misc]
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
