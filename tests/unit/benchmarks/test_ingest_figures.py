from collections import defaultdict

from benchmarks.ingest_figures import BenchEvent
from subgraphs.analytics.service.adapters.events import decode_event
from subgraphs.analytics.service.domain.rows import rows_from_event

EVENTS = [BenchEvent(number) for number in range(2_500)]


class TestBenchEvent:
    def test_rows_of_an_event_equal_those_that_analytics_stores(self) -> None:
        for event in EVENTS:
            _, value, headers = event.message()
            stored = [
                (
                    row.account_id,
                    row.account_version,
                    row.operation_id,
                    row.type.value,
                    row.direction.value,
                    row.amount,
                    row.currency,
                    row.balance_after,
                    row.counterparty_id,
                    row.occurred_at,
                )
                for row in rows_from_event(decode_event(value, headers))
            ]
            assert [tuple(row) for row in event.rows()] == stored

    def test_versions_of_every_account_have_no_gaps(self) -> None:
        versions = defaultdict[str, list[int]](list)
        for event in EVENTS:
            for account, version in event.sides():
                versions[account].append(version)
        assert len(versions) == 1_000
        for numbers in versions.values():
            assert numbers == list(range(1, len(numbers) + 1))
