from benchmarks.bank_environment import parse_batches


def test_batches_are_read_from_the_histogram() -> None:
    exposition = """
# TYPE wallet_bank_batch_size histogram
wallet_bank_batch_size_bucket{le="1.0"} 2.0
wallet_bank_batch_size_bucket{le="+Inf"} 4.0
wallet_bank_batch_size_count 4.0
wallet_bank_batch_size_sum 50.0
wallet_bank_batch_size_created 1.7e+09
"""
    assert parse_batches(exposition) == (4.0, 50.0)


def test_batches_are_zero_without_the_histogram() -> None:
    assert parse_batches("process_cpu_seconds_total 1.0\n") == (0.0, 0.0)
