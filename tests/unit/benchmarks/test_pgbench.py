import pytest

from benchmarks.figure import BenchError
from benchmarks.pgbench import PgbenchReport

REPORT = """\
pgbench (18.6)
progress: 1.0 s, 1000.0 tps, lat 3.066 ms stddev 1.196, 0 failed
progress: 2.0 s, 3000.0 tps, lat 3.066 ms stddev 1.196, 0 failed
progress: 3.0 s, 5000.5 tps, lat 3.066 ms stddev 1.196, 0 failed
progress: 4.0 s, 6000.5 tps, lat 3.066 ms stddev 1.196, 0 failed
transaction type: reference.sql
scaling factor: 1
query mode: prepared
number of clients: 16
number of threads: 2
maximum number of tries: 1
duration: 4 s
number of transactions actually processed: 15001
number of failed transactions: 0 (0.000%)
latency average = 4.139 ms
latency stddev = 2.017 ms
initial connection time = 23.618 ms
tps = 3765.210987 (without initial connection time)
"""


class TestPgbenchReport:
    def test_report_has_all_transactions_and_the_rate_after_the_warm_up(self) -> None:
        assert PgbenchReport.parse(REPORT, warm_up=2.0) == PgbenchReport(
            transactions=15_001, latency_ms=4.139, rate=5_500.5
        )

    def test_second_that_overlaps_the_warm_up_does_not_count(self) -> None:
        assert PgbenchReport.parse(REPORT, warm_up=2.25).rate == 6_000.5

    def test_failed_transactions_are_an_error(self) -> None:
        with pytest.raises(BenchError, match="3 transactions"):
            PgbenchReport.parse(REPORT.replace("transactions: 0 (", "transactions: 3 ("), warm_up=2.0)

    @pytest.mark.parametrize("text", ["", "pgbench: error: connection refused", REPORT[: REPORT.index("number of")]])
    def test_incomplete_output_is_an_error(self, text: str) -> None:
        with pytest.raises(BenchError, match="no complete report"):
            PgbenchReport.parse(text, warm_up=2.0)

    def test_run_that_ended_before_its_warm_up_is_an_error(self) -> None:
        with pytest.raises(BenchError, match="no complete report"):
            PgbenchReport.parse(REPORT, warm_up=9.0)
