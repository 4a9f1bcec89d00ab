"""Metrics of the card service."""

from prometheus_client import Counter, Enum, Gauge

from kit.integrity.check import Gauges
from kit.rpc.circuit_breaker import STATES
from kit.telemetry.metrics import with_old_name

TOP_UPS = Counter("wallet_card_top_ups", "Top-ups that reached a status.", ["status"])
STEPS = Counter("wallet_card_steps", "Steps called, by result.", ["step", "result"])
LEASES_LOST = Counter("wallet_card_leases_lost", "Drivers that stopped because another driver had saved the top-up.")
TOP_UPS_RESUMED = with_old_name(
    Counter("wallet_card_top_ups_resumed", "Top-ups that the completer continued."), "wallet_card_taken_over"
)
TOP_UPS_IN_PROGRESS = with_old_name(
    Gauge("wallet_card_top_ups_in_progress", "Top-ups that this replica processes now."), "wallet_card_driven"
)
OPEN = Gauge("wallet_card_top_ups_open", "Top-ups of all replicas that are not final, by status.", ["status"])
OLDEST_SECONDS = Gauge(
    "wallet_card_top_ups_oldest_seconds", "Age of the oldest top-up in progress, of all replicas; 0 if none."
)
TO_REVIEW = Gauge("wallet_card_top_ups_to_review", "Top-ups that need a manual review.")
TOKENS_REFUSED = Counter("wallet_card_tokens_refused", "Cards that the acquirer refused before an authorization.")
TOP_UPS_BLOCKED = Counter(
    "wallet_card_top_ups_blocked", "Top-ups refused after too many declined cards, by the kind of limit.", ["limit"]
)
BLOCKS = Gauge(
    "wallet_card_decline_blocks", "Customers, addresses and cards with too many declines, of all replicas.", ["limit"]
)
WEBHOOKS = Counter("wallet_card_webhooks", "Webhooks received, by outcome.", ["outcome"])
TOP_UP_STREAMS = with_old_name(Gauge("wallet_card_top_up_streams", "Open streams of top-ups."), "wallet_card_watchers")
CIRCUIT = Enum(
    "wallet_card_acquirer_circuit",
    "State of the acquirer's circuit breaker: opened blocks all calls, half-opened allows one.",
    states=STATES,
)
INTEGRITY = Gauges(
    violations=Gauge("wallet_card_integrity_violations", "Violations found by the last finished check."),
    pending=with_old_name(
        Gauge("wallet_card_integrity_pending", "Top-ups that were in progress in the last finished check."),
        "wallet_card_integrity_behind",
    ),
    finished=Gauge("wallet_card_integrity_finished_timestamp_seconds", "End of the last finished check; 0: none yet."),
)
