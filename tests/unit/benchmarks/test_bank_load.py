from benchmarks.bank_environment import batches
from benchmarks.bank_load import Window, tally
from benchmarks.http2_client import Call

WINDOW = Window(since=10.0, until=20.0)


class TestTally:
    def test_counts_a_call_for_the_part_of_it_that_is_in_the_window(self) -> None:
        calls = [
            Call(began=8.0, ended=12.0, transfers=100),  # half
            Call(began=12.0, ended=13.0, transfers=100),  # whole
            Call(began=19.0, ended=23.0, transfers=100),  # a quarter
            Call(began=1.0, ended=2.0, transfers=100),
            Call(began=5.0, ended=25.0, transfers=100),  # half
        ]
        assert tally(calls, WINDOW).transfers == 50 + 100 + 25 + 50

    def test_acknowledges_all_whenever(self) -> None:
        calls = [Call(began=1.0, ended=2.0, transfers=3), Call(began=12.0, ended=13.0, transfers=4)]
        assert tally(calls, WINDOW).acknowledged == 7

    def test_has_the_latencies_of_calls_that_ended_in_the_window(self) -> None:
        calls = [
            Call(began=9.0, ended=9.5, transfers=1),
            Call(began=9.5, ended=10.5, transfers=1),
            Call(began=19.5, ended=21.0, transfers=1),
        ]
        assert tally(calls, WINDOW).latencies_ms == [1_000.0]

    def test_of_a_run_that_failed_keeps_why(self) -> None:
        assert tally([], WINDOW, "UNAVAILABLE: gone").error == "UNAVAILABLE: gone"


class TestBatches:
    def test_are_read_from_the_histogram(self) -> None:
        exposition = """
# TYPE wallet_bank_batch_size histogram
wallet_bank_batch_size_bucket{le="1.0"} 2.0
wallet_bank_batch_size_bucket{le="+Inf"} 4.0
wallet_bank_batch_size_count 4.0
wallet_bank_batch_size_sum 50.0
wallet_bank_batch_size_created 1.7e+09
"""
        assert batches(exposition) == (4.0, 50.0)

    def test_are_none_where_the_bank_does_not_tell(self) -> None:
        assert batches("process_cpu_seconds_total 1.0\n") == (0.0, 0.0)
