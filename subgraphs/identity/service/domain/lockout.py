"""Lock-out of user names after failed login attempts."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class LockoutPolicy:
    """Limits of consecutive login attempts with one user name.

    Attributes:
        free_attempts: number of attempts after which the name is locked.
        first_seconds: duration of the first lock; each further attempt doubles the duration.
        longest_seconds: maximum duration of a lock.
    """

    free_attempts: int = 5
    first_seconds: float = 1.0
    longest_seconds: float = 900.0

    def lock_seconds(self, attempts: int) -> float:
        """Return the duration of the lock after a number of consecutive attempts."""
        if attempts < self.free_attempts:
            return 0.0
        doublings = min(attempts - self.free_attempts, 64)  # more would overflow a float
        return min(self.longest_seconds, self.first_seconds * 2.0**doublings)


@dataclass(frozen=True, slots=True)
class LoginAttempts:
    """Attempts to log in with a user name since its last successful login, whether or not the user exists.

    `locked_until` equals the last attempt's start if that attempt did not lock the name. If it is further ahead than
    the lock of the last attempt can last, the clock was ahead when it was stored, and the name is not locked.
    """

    count: int
    locked_until: datetime

    def add_attempt(self, now: datetime, policy: LockoutPolicy) -> "LoginAttempts | None":
        """Count an attempt that starts now; return None if the name is locked.

        The attempt is counted before its password is verified, so that concurrent guesses cannot exceed the limit. A
        login resets the count.
        """
        longest = timedelta(seconds=policy.lock_seconds(self.count))
        if now < self.locked_until <= now + longest:
            return None
        count = self.count + 1
        return LoginAttempts(count, now + timedelta(seconds=policy.lock_seconds(count)))

    def seconds_left(self, now: datetime) -> int:
        """Return the time until the name is unlocked, in whole seconds, at least 1."""
        return max(1, math.ceil((self.locked_until - now).total_seconds()))
