"""Run a module with `datetime.now` ahead by `CLOCK_AHEAD_SECONDS`: `python clock_ahead.py MODULE`.

`time.time` and PyJWT's clock are not changed: gRPC compares `time.time` with a clock that Python cannot replace, and
the tests sign their tokens with the real time.
"""

import datetime as dt
import os
import runpy
import sys

import jwt  # noqa: F401  imported before the change, so it keeps the real clock

AHEAD = float(os.environ["CLOCK_AHEAD_SECONDS"])
_datetime = dt.datetime


class DatetimeAhead(_datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return _datetime.now(tz) + dt.timedelta(seconds=AHEAD)


if __name__ == "__main__":
    dt.datetime = DatetimeAhead  # type: ignore[misc]
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
