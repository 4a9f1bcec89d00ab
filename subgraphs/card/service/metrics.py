"""The card service's own metrics."""

from prometheus_client import Counter, Enum, Gauge

from kit.integrity.check import Gauges
from kit.rpc.circuit_breaker import STATES

TOP_UPS = Counter("wallet_card_top_ups", "Top-ups that came to a status.", ["status"])
STEPS = Counter("wallet_card_steps", "Steps taken, by what came of them.", ["step", "result"])
LEASES_LOST = Counter("wallet_card_leases_lost", "Steps whose top-up somebody else had moved on meanwhile.")
TAKEN_OVER = Counter("wallet_card_taken_over", "Top-ups that the completer took up.")
DRIVEN = Gauge("wallet_card_driven", "Top-ups that are being driven now.")
OPEN = Gauge("wallet_card_top_ups_open", "Top-ups that have not come to their end, by status.", ["status"])
OLDEST_SECONDS = Gauge(
    "wallet_card_top_ups_oldest_seconds", "Age of the oldest top-up that is under way, whoever drives it; 0: none is."
)
TO_REVIEW = Gauge("wallet_card_top_ups_to_review", "Top-ups that a person has to look at.")
WEBHOOKS = Counter("wallet_card_webhooks", "Webhooks received, by what was made of them.", ["outcome"])
WATCHERS = Gauge("wallet_card_watchers", "Open streams of top-ups.")
CIRCUIT = Enum(
    "wallet_card_acquirer_circuit",
    "Whether the acquirer is called: opened, it is not; half-opened, once.",
    states=STATES,
)
INTEGRITY = Gauges(
    violations=Gauge("wallet_card_integrity_violations", "What breaks a law, by the last finished proof."),
    pending=Gauge("wallet_card_integrity_behind", "Top-ups that were in progress, by the last finished proof."),
    finished=Gauge(
        "wallet_card_integrity_finished_timestamp_seconds", "When the last finished proof ended; 0: none yet."
    ),
)
