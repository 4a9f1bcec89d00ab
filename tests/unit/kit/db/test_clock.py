"""Comparison of a process's clock with that of its database."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from kit.db import postgres
from kit.db.postgres import MAX_CLOCK_SKEW_SECONDS, ClockSkew, check_clock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIMIT = timedelta(seconds=MAX_CLOCK_SKEW_SECONDS)
MOMENT = timedelta(milliseconds=1)


@pytest.mark.parametrize("off", [-LIMIT, timedelta(), LIMIT])
def test_difference_up_to_the_limit_is_accepted(monkeypatch: pytest.MonkeyPatch, off: timedelta) -> None:
    monkeypatch.setattr(postgres, "utc_now", lambda: NOON)
    check_clock(NOON + off, NOON)


@pytest.mark.parametrize("off", [-LIMIT - MOMENT, LIMIT + MOMENT, timedelta(days=400)])
def test_difference_above_the_limit_is_an_error(monkeypatch: pytest.MonkeyPatch, off: timedelta) -> None:
    monkeypatch.setattr(postgres, "utc_now", lambda: NOON)
    with pytest.raises(ClockSkew, match=re.escape(f"{-off.total_seconds():+.1f} s off")):
        check_clock(NOON + off, NOON)


def test_slow_response_is_no_clock_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "utc_now", lambda: NOON + timedelta(seconds=30))
    check_clock(NOON + timedelta(seconds=1), NOON)
