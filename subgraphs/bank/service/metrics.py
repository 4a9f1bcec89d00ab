"""The bank's own metrics."""

from prometheus_client import Counter, Gauge, Histogram

from kit.integrity.check import Gauges

BATCH_SIZE = Histogram(
    "wallet_bank_batch_size", "Commands committed together.", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
BATCH_WAIT_SECONDS = Histogram(
    "wallet_bank_batch_wait_seconds",
    "How long the first command of a batch waited for it.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
SHED = Counter("wallet_bank_commands_shed", "Commands refused because too many waited.")
COMMITS_LOST = Counter("wallet_bank_commits_lost", "Transactions whose answer was lost; each was run again.")
OUTBOX_BACKLOG = Gauge(
    "wallet_bank_outbox_backlog", "Operations committed and not yet published, counted up to 100,000."
)
OUTBOX_AGE_SECONDS = Gauge(
    "wallet_bank_outbox_age_seconds", "How long the oldest of them has waited; 0: there is none."
)
OUTBOX_LEADS = Gauge("wallet_bank_outbox_leads", "1 if this replica led the outbox when it last tried to, 0 if not.")
EVENTS_PUBLISHED = Counter("wallet_bank_events_published", "Events that the broker has confirmed.")
REPLICA_READS = Counter(
    "wallet_bank_replica_reads", "Reads that a replica was asked for: answered, or it was away.", ["how"]
)
INTEGRITY = Gauges(
    violations=Gauge("wallet_bank_integrity_violations", "Rows that break a law, by the last finished proof."),
    finished=Gauge(
        "wallet_bank_integrity_finished_timestamp_seconds", "When the last finished proof ended; 0: none yet."
    ),
)
