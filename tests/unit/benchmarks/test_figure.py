import json
from typing import Literal

import pytest

from benchmarks.figure import Figure


@pytest.mark.parametrize(
    ("value", "better", "is_met"),
    [(0.8, "higher", True), (0.79, "higher", False), (0.8, "lower", True), (0.81, "lower", False)],
)
def test_target_is_met_on_the_better_side_of_the_bar(
    value: float, better: Literal["higher", "lower"], *, is_met: bool
) -> None:
    figure = Figure(figure="some.figure", value=value, unit="ratio", bar=0.8, better=better, details={})
    assert figure.meets_target is is_met


def test_figure_without_a_bar_meets_its_target() -> None:
    assert Figure(figure="some.figure", value=0.0, unit="ratio", details={}).meets_target


def test_figure_is_one_line_of_json_with_rounded_numbers() -> None:
    details = {"runs": [{"rate": 1 / 3}], "latency_ms": {"p50": 2 / 3}, "count": 7, "name": "x"}
    line = Figure(figure="some.figure", value=1.23456, unit="ratio", bar=0.8, details=details).to_json()
    assert "\n" not in line
    assert json.loads(line) == {
        "figure": "some.figure",
        "value": 1.235,
        "unit": "ratio",
        "bar": 0.8,
        "better": "higher",
        "details": {"runs": [{"rate": 0.333}], "latency_ms": {"p50": 0.667}, "count": 7, "name": "x"},
    }
