"""A page about a run needs nothing but itself."""

import re
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from loadtests import watch
from loadtests.charts import Band, Bar, bars, lines, nice, short
from loadtests.history.log import Line, Log
from loadtests.plan import Customer, Plan
from loadtests.report import page
from loadtests.run import FILE, Outcome, tally
from loadtests.watch import Sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Plan(host="http://127.0.0.1:1", customers=[Customer("s", "p", "secret-token", "a")]).write(tmp_path)
    with Log(tmp_path) as log:
        for number in range(30):
            log.write(
                Line(name="REST transfer", due=100 + number / 10, began=100 + number / 10, ended=100.05 + number / 10)
            )
        log.write(Line(name="balance", due=101, began=101, ended=102, error="UNAVAILABLE"))
    fault = {"name": "kill <bank>", "began": 101.0, "ended": 101.5, "recovered": 0.7}
    outcome = Outcome(
        began=100.0,
        ended=103.0,
        answered=30,
        latency_ms={"p50": 50.0, "p95": 50.0, "p99": 50.0},
        errors={"UNAVAILABLE": 1},
        dropped=0,
        calls=31,
        verdict="BROKEN",
        violations=["broken: a <law>"],
        faults=[fault],
    )
    (tmp_path / FILE).write_bytes(orjson.dumps(asdict(outcome)))
    samples = [
        Sample(
            at=100.5 + n,
            metrics={"commands": 10.0 * n, "batches": 2.0 * n, "lag": 3.0},
            processes={"bank 1": 2**26, "bank 2": 2**26},
        )
        for n in range(3)
    ]
    (tmp_path / watch.FILE).write_bytes(b"".join(orjson.dumps(asdict(each)) + b"\n" for each in samples))
    return tmp_path


class TestPage:
    def test_shows_the_verdict_what_is_broken_faults_and_every_chart(self, folder: Path) -> None:
        text = page(folder)
        for shown in (
            "Broken",
            "a &lt;law&gt;",
            "kill &lt;bank&gt;",
            "Latency",
            "batch size",
            "consumer lag",
            "REST transfer",
        ):
            assert shown in text
        assert text.count("<svg") == 5

    def test_loads_nothing_and_tells_no_token(self, folder: Path) -> None:
        text = page(folder)
        assert not re.search(r"(src|href)=|@import|url\(|<script", text)
        assert "secret-token" not in text


class TestTally:
    def test_counts_answers_errors_and_what_was_dropped_from_when_it_was_due(self) -> None:
        lines = [
            Line(name="a", due=1.0, began=1.5, ended=2.0),
            Line(name="a", due=2.0, began=2.0, ended=2.1, error="UNAVAILABLE"),
            Line(name="dropped", due=3.0, dropped=1),
            Line(name="checker", due=0.0, began=0.0, ended=99.0),
        ]
        told = tally(lines, 0.0, 5.0)
        assert (told.answered, told.errors, told.dropped) == (1, {"UNAVAILABLE": 1}, 1)
        assert told.latency_ms["p50"] == pytest.approx(1_000)
        assert (told.began, told.ended) == (1.5, 2.1)


class TestCharts:
    def test_shade_what_happened_meanwhile(self) -> None:
        drawn = lines("t", {"p50": [(0.0, 1.0), (2.0, 3.0)]}, 4.0, [Band("a <fault>", 1.0, 9.0)])
        assert 'class="band"' in drawn
        assert "a &lt;fault&gt;" in drawn

    def test_mark_where_a_value_should_be(self) -> None:
        drawn = bars("t", "ratio", [Bar("one", 1.0, 0.9, 1.1, bar=0.8), Bar("two", 2.0, 2.0, 2.0)])
        assert drawn.count('class="edge"') == 1

    @pytest.mark.parametrize(("value", "round_"), [(0, 1), (1, 1), (3, 4), (70, 80), (0.9, 1), (1_001, 2_000)])
    def test_have_round_scales(self, value: float, round_: float) -> None:
        assert nice(value) == pytest.approx(round_)

    @pytest.mark.parametrize(("value", "text"), [(0.25, "0.25"), (1_234.5, "1234"), (25_000, "25k"), (3e6, "3M")])
    def test_say_numbers_shortly(self, value: float, text: str) -> None:
        assert short(value) == text
