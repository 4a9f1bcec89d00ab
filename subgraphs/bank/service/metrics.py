"""Metrics of the bank."""

from prometheus_client import Counter, Gauge, Histogram

from kit.integrity.check import Gauges
from kit.telemetry.metrics import with_old_name

BATCH_SIZE = Histogram(
    "wallet_bank_batch_size",
    "Commands (transfers and other writes) in one committed batch.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
BATCH_WAIT_SECONDS = Histogram(
    "wallet_bank_batch_wait_seconds",
    "Time that the first command of a batch waited in the queue.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
COMMANDS_REJECTED = with_old_name(
    Counter("wallet_bank_commands_rejected", "Commands refused because the queue was full."),
    "wallet_bank_commands_shed",
)
COMMIT_OUTCOMES_UNKNOWN = with_old_name(
    Counter(
        "wallet_bank_commit_outcomes_unknown",
        "Commits that the database did not confirm, so that their outcome was unknown. The bank repeats them.",
    ),
    "wallet_bank_commits_lost",
)
OUTBOX_BACKLOG = Gauge(
    "wallet_bank_outbox_backlog",
    "Rows of the outbox: operations that are not published to Kafka yet, counted up to 100,000.",
)
OUTBOX_AGE_SECONDS = Gauge(
    "wallet_bank_outbox_age_seconds",
    "Age of the oldest outbox row, an operation that is not published to Kafka yet; 0 if there is none.",
)
OUTBOX_IS_LEADER = with_old_name(
    Gauge(
        "wallet_bank_outbox_is_leader",
        "1 if this replica's last attempt to become the leader, which publishes the outbox, succeeded; else 0.",
    ),
    "wallet_bank_outbox_leads",
)
EVENTS_PUBLISHED = Counter("wallet_bank_events_published", "Published events that the Kafka broker confirmed.")
REPLICA_READS = Counter(
    "wallet_bank_replica_reads",
    "Reads sent to the read replica, by result: `answered`; `away` if the replica failed or timed out; `outdated` if "
    "the replica lacks the primary's last restore or last correction of dates (redating).",
    ["how"],
)
INTEGRITY = Gauges(
    violations=Gauge("wallet_bank_integrity_violations", "Violations that the last finished integrity check found."),
    finished=Gauge(
        "wallet_bank_integrity_finished_timestamp_seconds",
        "Time at which the last finished integrity check ended; 0: none has ended yet.",
    ),
)
