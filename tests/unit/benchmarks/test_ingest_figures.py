from collections import defaultdict

from benchmarks.ingest_figures import Event
from subgraphs.analytics.service.adapters.events import decode_event
from subgraphs.analytics.service.domain.rows import rows_from_event

EVENTS = [Event(number) for number in range(2_500)]


class TestAnEventOfTheBenchmark:
    def test_is_of_the_contract_and_has_the_rows_that_it_says(self) -> None:
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

    def test_goes_on_from_the_one_before_in_every_account(self) -> None:
        versions = defaultdict[str, list[int]](list)
        for event in EVENTS:
            for account, version in event.sides():
                versions[account].append(version)
        assert len(versions) == 1_000
        for seen in versions.values():
            assert seen == list(range(1, len(seen) + 1))
