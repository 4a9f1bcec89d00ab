"""HTML page, figures and charts of a run."""

import re
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from loadtests import sampling
from loadtests.charts import Band, Bar, draw_bars, draw_lines, format_short, round_up
from loadtests.history.storage import HistoryWriter, RequestRecord
from loadtests.plan import Customer, Plan
from loadtests.report import render_page
from loadtests.run import FILE, Outcome, summarize
from loadtests.sampling import Sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Plan(host="http://127.0.0.1:1", customers=[Customer("s", "p", "secret-token", "a")]).write(tmp_path)
    with HistoryWriter(tmp_path) as writer:
        for number in range(30):
            writer.write(
                RequestRecord(
                    name="REST transfer", due=100 + number / 10, began=100 + number / 10, ended=100.05 + number / 10
                )
            )
        writer.write(RequestRecord(name="balance", due=101, began=101, ended=102, error="UNAVAILABLE"))
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
        violations=["broken: an <invariant>"],
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
    (tmp_path / sampling.FILE).write_bytes(b"".join(orjson.dumps(asdict(each)) + b"\n" for each in samples))
    return tmp_path


class TestPage:
    def test_page_has_verdict_violations_faults_and_all_charts(self, folder: Path) -> None:
        text = render_page(folder)
        for part in (
            "Broken",
            "an &lt;invariant&gt;",
            "kill &lt;bank&gt;",
            "Latency",
            "batch size",
            "consumer lag",
            "REST transfer",
        ):
            assert part in text
        assert text.count("<svg") == 5

    def test_page_has_no_external_resources_and_no_tokens(self, folder: Path) -> None:
        text = render_page(folder)
        assert not re.search(r"(src|href)=|@import|url\(|<script", text)
        assert "secret-token" not in text


class TestSummarize:
    def test_correct_responses_errors_and_dropped_requests_are_counted(self) -> None:
        records = [
            RequestRecord(name="a", due=1.0, began=1.5, ended=2.0),
            RequestRecord(name="a", due=2.0, began=2.0, ended=2.1, error="UNAVAILABLE"),
            RequestRecord(name="dropped", due=3.0, dropped=1),
            RequestRecord(name="checker", due=0.0, began=0.0, ended=99.0),
        ]
        outcome = summarize(records, 0.0, 5.0)
        assert (outcome.answered, outcome.errors, outcome.dropped) == (1, {"UNAVAILABLE": 1}, 1)
        assert outcome.latency_ms["p50"] == pytest.approx(1_000)
        assert (outcome.began, outcome.ended) == (1.5, 2.1)


class TestCharts:
    def test_line_chart_shades_bands_and_escapes_names(self) -> None:
        chart = draw_lines("t", {"p50": [(0.0, 1.0), (2.0, 3.0)]}, 4.0, [Band("a <fault>", 1.0, 9.0)])
        assert 'class="band"' in chart
        assert "a &lt;fault&gt;" in chart

    def test_bar_chart_marks_targets(self) -> None:
        chart = draw_bars("t", "ratio", [Bar("one", 1.0, 0.9, 1.1, bar=0.8), Bar("two", 2.0, 2.0, 2.0)])
        assert chart.count('class="edge"') == 1

    @pytest.mark.parametrize(("value", "round_"), [(0, 1), (1, 1), (3, 4), (70, 80), (0.9, 1), (1_001, 2_000)])
    def test_scale_ends_at_a_round_number(self, value: float, round_: float) -> None:
        assert round_up(value) == pytest.approx(round_)

    @pytest.mark.parametrize(
        ("value", "text"), [(0.25, "0.25"), (999.7, "1000"), (1_234.5, "1234"), (25_000, "25k"), (3e6, "3M")]
    )
    def test_number_is_formatted_with_a_suffix(self, value: float, text: str) -> None:
        assert format_short(value) == text
