"""Lock-out of user names."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from subgraphs.identity.service.domain.lockout import LockoutPolicy, LoginAttempts

NOW = datetime(2026, 11, 21, tzinfo=UTC)


class TestLockout:
    def test_lock_starts_with_the_fifth_attempt_and_doubles_up_to_15_minutes(self) -> None:
        lockout = LockoutPolicy()
        assert [lockout.lock_seconds(count) for count in range(1, 9)] == [0, 0, 0, 0, 1, 2, 4, 8]
        assert lockout.lock_seconds(15) == 900
        assert lockout.lock_seconds(10**9) == 900

    @given(st.lists(st.floats(0, 2000), max_size=60), st.integers(1, 8))
    def test_attempt_is_counted_only_after_the_lock(self, waits: list[float], free: int) -> None:
        lockout = LockoutPolicy(free, 1.0, 900.0)
        now, attempts, counted = NOW, LoginAttempts(0, NOW), 0
        for wait in waits:
            now += timedelta(seconds=wait)
            more = attempts.add_attempt(now, lockout)
            if more is None:
                assert now < attempts.locked_until <= now + timedelta(seconds=900)
                assert 1 <= attempts.seconds_left(now) <= 900
                continue
            counted += 1
            assert more.count == counted
            assert more.locked_until == now + timedelta(seconds=lockout.lock_seconds(counted))
            attempts = more
        assert counted >= min(free, len(waits))

    @given(st.integers(0, 20), st.floats(0.001, 10 * 365 * 86_400))
    def test_lock_of_a_clock_that_was_ahead_is_over(self, count: int, ahead: float) -> None:
        lockout = LockoutPolicy()
        stored_at = NOW + timedelta(seconds=ahead)
        locked = LoginAttempts(count, stored_at + timedelta(seconds=lockout.lock_seconds(count)))
        lock = timedelta(seconds=lockout.lock_seconds(count + 1))
        assert locked.add_attempt(NOW, lockout) == LoginAttempts(count + 1, NOW + lock)

    def test_remaining_lock_time_is_rounded_up(self) -> None:
        locked = LoginAttempts(5, NOW + timedelta(seconds=1.2))
        assert locked.seconds_left(NOW) == 2
        assert locked.seconds_left(NOW + timedelta(seconds=1.1999)) == 1
