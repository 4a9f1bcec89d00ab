"""A clock that only the test moves."""


class ManualClock:
    """Replacement for the module `time`: a monotonic clock that stands still until the test advances it.

    Tests put it in the place of the module: `monkeypatch.setattr(circuit_breaker, "time", ManualClock())`.
    """

    def __init__(self) -> None:
        self._now = 1_000.0

    def monotonic(self) -> float:
        """Return the seconds on the clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds
