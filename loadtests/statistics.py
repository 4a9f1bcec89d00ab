"""Percentiles of measured values."""

import math
from collections.abc import Sequence


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p95 and p99 by the nearest-rank method: each is one of the values. Empty if there are no values."""
    ordered = sorted(values)
    return {f"p{p}": ordered[math.ceil(len(ordered) * p / 100) - 1] for p in (50, 95, 99)} if ordered else {}
