"""Metrics of analytics."""

from prometheus_client import Counter, Gauge

from kit.integrity.check import Gauges
from kit.telemetry.metrics import with_old_name

EVENTS_CONSUMED = Counter(
    "wallet_analytics_events_consumed",
    "Valid messages of the topic wallet.operations that the consumer handled: stored, or skipped as events of another "
    "epoch.",
)
DEAD_LETTERS = Counter(
    "wallet_analytics_dead_letters", "Invalid messages of the topic wallet.operations, copied to the dead-letter topic."
)
ROWS_INSERTED = Counter(
    "wallet_analytics_rows_inserted", "Rows inserted into ClickHouse; a row that is inserted again counts again."
)
EVENTS_REPAIRED = Counter(
    "wallet_analytics_events_repaired",
    "Missing operations that the repair read from the bank and inserted into the history.",
)
CONSUMER_LAG = Gauge(
    "wallet_analytics_consumer_lag", "Kafka messages in this replica's partitions that are not stored yet."
)
CONSUMER_PARTITIONS = Gauge(
    "wallet_analytics_consumer_partitions", "Partitions of the topic wallet.operations that this replica consumes."
)
CONSUMER_PROGRESS = Gauge(
    "wallet_analytics_consumer_progress_timestamp_seconds",
    "Time at which the Kafka consumer last stored messages, or found that none waits; 0: it has not started yet.",
)
CONSUMER_STOPPED = Gauge(
    "wallet_analytics_consumer_stopped", "1 if the Kafka consumer has stopped because too many messages were invalid."
)
ACCOUNTS_INCOMPLETE = Gauge(
    "wallet_analytics_accounts_incomplete",
    "Accounts whose history lacked operations at the last comparison with the bank.",
)
COMPARED = Gauge(
    "wallet_analytics_compared_timestamp_seconds",
    "Time at which the last comparison of all accounts' histories with the bank ended; 0: none has ended yet.",
)
SUBSCRIBERS = Gauge("wallet_analytics_subscribers", "Open streams that send operations to a subscriber.")
INTEGRITY = Gauges(
    violations=Gauge(
        "wallet_analytics_integrity_violations", "Violations that the last finished integrity check found."
    ),
    pending=with_old_name(
        Gauge(
            "wallet_analytics_integrity_pending",
            "Operations that the last finished integrity check found in the ledger but not yet in the history, and too "
            "recent to be violations.",
        ),
        "wallet_analytics_integrity_behind",
    ),
    finished=Gauge(
        "wallet_analytics_integrity_finished_timestamp_seconds",
        "Time at which the last finished integrity check ended; 0: none has ended yet.",
    ),
)
REPLAYED = Counter(
    "wallet_analytics_operations_replayed",
    "Operations that `wallet replay` read from the bank and inserted into the history.",
)
REMOVED = Counter(
    "wallet_analytics_rows_removed", "Rows that `wallet replay` deleted because they differed from the ledger."
)
EPOCH_CHANGES = Counter(
    "wallet_analytics_epoch_changes",
    "Rebuilds of the history because the ledger had begun another epoch, as after a restore from a backup.",
)
REBUILDING = Gauge(
    "wallet_analytics_rebuilding",
    "1 while the history is rebuilt because the ledger has begun another epoch, as after a restore from a backup.",
)
OTHER_EPOCH_EVENTS = Counter(
    "wallet_analytics_events_of_other_epochs",
    "Messages of the topic wallet.operations that were skipped because they are from another epoch of the ledger; a "
    "restore from a backup begins a new one.",
)
