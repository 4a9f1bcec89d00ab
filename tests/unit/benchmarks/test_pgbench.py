import pytest

from benchmarks.figure import BenchError
from benchmarks.pgbench import Report

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


class TestReport:
    def test_tells_all_transactions_and_the_speed_after_the_warm_up(self) -> None:
        assert Report.parse(REPORT, warm_up=2.0) == Report(transactions=15_001, latency_ms=4.139, rate=5_500.5)

    def test_a_second_counts_when_all_of_it_is_after_the_warm_up(self) -> None:
        assert Report.parse(REPORT, warm_up=2.25).rate == 6_000.5

    def test_refuses_a_run_with_failed_transactions(self) -> None:
        with pytest.raises(BenchError, match="3 transactions"):
            Report.parse(REPORT.replace("transactions: 0 (", "transactions: 3 ("), warm_up=2.0)

    @pytest.mark.parametrize("text", ["", "pgbench: error: connection refused", REPORT[: REPORT.index("number of")]])
    def test_refuses_what_is_no_report(self, text: str) -> None:
        with pytest.raises(BenchError, match="pgbench said"):
            Report.parse(text, warm_up=2.0)

    def test_refuses_a_run_that_ended_before_its_warm_up(self) -> None:
        with pytest.raises(BenchError, match="pgbench said"):
            Report.parse(REPORT, warm_up=9.0)
