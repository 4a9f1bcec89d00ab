"""The bank's own metrics."""

from prometheus_client import Counter, Gauge

OUTBOX_BACKLOG = Gauge("wallet_bank_outbox_backlog", "Operations committed and not yet published; 0 on a follower.")
EVENTS_PUBLISHED = Counter("wallet_bank_events_published", "Events that the broker has confirmed.")
