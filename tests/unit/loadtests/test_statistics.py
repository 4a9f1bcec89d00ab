"""Percentiles of measured values."""

from loadtests.statistics import percentiles


def test_percentiles_use_nearest_rank() -> None:
    assert percentiles([float(n) for n in range(200, 0, -1)]) == {"p50": 100.0, "p95": 190.0, "p99": 198.0}


def test_percentiles_of_one_value_are_that_value() -> None:
    assert percentiles([3.5]) == {"p50": 3.5, "p95": 3.5, "p99": 3.5}


def test_percentiles_of_no_values_are_empty() -> None:
    assert percentiles([]) == {}
