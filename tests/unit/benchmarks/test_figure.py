import json
from typing import Literal

import pytest

from benchmarks.figure import Figure


class TestFigure:
    @pytest.mark.parametrize(
        ("value", "better", "holds"),
        [(0.8, "higher", True), (0.79, "higher", False), (0.8, "lower", True), (0.81, "lower", False)],
    )
    def test_holds_on_the_right_side_of_its_bar(
        self, value: float, better: Literal["higher", "lower"], *, holds: bool
    ) -> None:
        figure = Figure(figure="some.figure", value=value, unit="ratio", bar=0.8, better=better, details={})
        assert figure.holds is holds

    def test_without_a_bar_it_always_holds(self) -> None:
        assert Figure(figure="some.figure", value=0.0, unit="ratio", details={}).holds

    def test_is_one_line_of_json_with_rounded_numbers(self) -> None:
        details = {"runs": [{"rate": 1 / 3}], "latency_ms": {"p50": 2 / 3}, "count": 7, "name": "x"}
        line = Figure(figure="some.figure", value=1.23456, unit="ratio", bar=0.8, details=details).line()
        assert "\n" not in line
        assert json.loads(line) == {
            "figure": "some.figure",
            "value": 1.235,
            "unit": "ratio",
            "bar": 0.8,
            "better": "higher",
            "details": {"runs": [{"rate": 0.333}], "latency_ms": {"p50": 0.667}, "count": 7, "name": "x"},
        }
