"""Metrics of analytics."""

from prometheus_client import Counter, Gauge

from kit.integrity.check import Gauges
from kit.telemetry.metrics import with_old_name

EVENTS_CONSUMED = Counter("wallet_analytics_events_consumed", "Messages of the topic that were stored.")
DEAD_LETTERS = Counter("wallet_analytics_dead_letters", "Invalid messages of the topic, sent to the dead letters.")
ROWS_INSERTED = Counter("wallet_analytics_rows_inserted", "Rows inserted, repeated ones included.")
EVENTS_REPAIRED = Counter(
    "wallet_analytics_events_repaired", "Missing operations that the repair inserted from the bank."
)
CONSUMER_LAG = Gauge("wallet_analytics_consumer_lag", "Messages in this replica's partitions that are not stored.")
CONSUMER_STOPPED = Gauge(
    "wallet_analytics_consumer_stopped", "1 if the consumer has stopped because of too many dead letters."
)
ACCOUNTS_INCOMPLETE = Gauge(
    "wallet_analytics_accounts_incomplete", "Accounts with an incomplete history in the last comparison."
)
COMPARED = Gauge(
    "wallet_analytics_compared_timestamp_seconds", "End of the last comparison of all accounts; 0: none yet."
)
SUBSCRIBERS = Gauge("wallet_analytics_subscribers", "Open streams of operations.")
INTEGRITY = Gauges(
    violations=Gauge("wallet_analytics_integrity_violations", "Violations found by the last finished check."),
    pending=with_old_name(
        Gauge("wallet_analytics_integrity_pending", "Operations that were pending in the last finished check."),
        "wallet_analytics_integrity_behind",
    ),
    finished=Gauge(
        "wallet_analytics_integrity_finished_timestamp_seconds", "End of the last finished check; 0: none yet."
    ),
)
REPLAYED = Counter("wallet_analytics_operations_replayed", "Operations that a replay inserted from the bank.")
REMOVED = Counter("wallet_analytics_rows_removed", "Rows that differed from the ledger and were deleted by a replay.")
EPOCH_CHANGES = Counter(
    "wallet_analytics_epoch_changes", "Rebuilds of the history because the ledger began another epoch."
)
REBUILDING = Gauge(
    "wallet_analytics_rebuilding", "1 while the history is rebuilt because the ledger began another epoch."
)
OTHER_EPOCH_EVENTS = Counter(
    "wallet_analytics_events_of_other_epochs",
    "Messages of the topic that were skipped: their epoch is not the ledger's.",
)
