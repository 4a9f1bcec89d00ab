"""Analytics' own metrics."""

from prometheus_client import Counter, Gauge

from kit.integrity.check import Gauges

EVENTS_CONSUMED = Counter("wallet_analytics_events_consumed", "Messages of the topic that were read and stored.")
DEAD_LETTERS = Counter("wallet_analytics_dead_letters", "Messages of the topic that could not be read.")
ROWS_INSERTED = Counter("wallet_analytics_rows_inserted", "Rows stored, twice delivered ones included.")
EVENTS_REPAIRED = Counter("wallet_analytics_events_repaired", "Events pulled from the bank because they were missing.")
CONSUMER_LAG = Gauge(
    "wallet_analytics_consumer_lag", "Messages of this replica's partitions that are there and not stored."
)
CONSUMER_STOPPED = Gauge("wallet_analytics_consumer_stopped", "1 when too much was unreadable: a person must look.")
ACCOUNTS_INCOMPLETE = Gauge(
    "wallet_analytics_accounts_incomplete", "Accounts whose history was not known to be complete when last compared."
)
COMPARED = Gauge(
    "wallet_analytics_compared_timestamp_seconds", "When all accounts had last been compared and mended; 0: not yet."
)
SUBSCRIBERS = Gauge("wallet_analytics_subscribers", "Open streams of operations.")
INTEGRITY = Gauges(
    violations=Gauge(
        "wallet_analytics_integrity_violations", "Operations that differ from the ledger, by the last finished proof."
    ),
    pending=Gauge(
        "wallet_analytics_integrity_behind", "Operations that were still on their way, by the last finished proof."
    ),
    finished=Gauge(
        "wallet_analytics_integrity_finished_timestamp_seconds", "When the last finished proof ended; 0: none yet."
    ),
)
REPLAYED = Counter("wallet_analytics_operations_replayed", "Operations that a replay pulled from the bank.")
REMOVED = Counter("wallet_analytics_rows_removed", "Rows that a replay removed, since the ledger has no such.")
