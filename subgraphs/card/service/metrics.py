"""Metrics of the card service."""

from prometheus_client import Counter, Enum, Gauge

from kit.integrity.check import Gauges
from kit.rpc.circuit_breaker import STATES
from kit.telemetry.metrics import with_old_name

TOP_UPS = Counter("wallet_card_top_ups", "Top-ups that reached a status, by status.", ["status"])
STEPS = Counter(
    "wallet_card_steps", "Calls of the steps of top-ups, by step and type of the result.", ["step", "result"]
)
LEASES_LOST = Counter(
    "wallet_card_leases_lost", "Times that a task stopped processing a top-up because another task had saved it."
)
TOP_UPS_RESUMED = with_old_name(
    Counter("wallet_card_top_ups_resumed", "Unfinished top-ups that the background task (the completer) continued."),
    "wallet_card_taken_over",
)
TOP_UPS_IN_PROGRESS = with_old_name(
    Gauge("wallet_card_top_ups_in_progress", "Top-ups that this replica processes now."), "wallet_card_driven"
)
OPEN = Gauge("wallet_card_top_ups_open", "Top-ups of all replicas that are not final, by status.", ["status"])
OLDEST_SECONDS = Gauge(
    "wallet_card_top_ups_oldest_seconds", "Age of the oldest top-up in progress, over all replicas; 0 if there is none."
)
TO_REVIEW = Gauge("wallet_card_top_ups_to_review", "Top-ups of all replicas that need a manual review.")
TOKENS_REFUSED = Counter(
    "wallet_card_tokens_refused", "Cards that the acquirer refused to tokenize, before an authorization."
)
TOP_UPS_BLOCKED = Counter(
    "wallet_card_top_ups_blocked",
    "Top-ups refused after too many declined cards, by limit: customer, address or card.",
    ["limit"],
)
BLOCKS = Gauge(
    "wallet_card_decline_blocks",
    "Customers, addresses and cards whose top-ups are refused now after too many declined cards, by limit. All "
    "replicas have the same value.",
    ["limit"],
)
WEBHOOKS = Counter("wallet_card_webhooks", "Webhooks received from the acquirer, by outcome.", ["outcome"])
TOP_UP_STREAMS = with_old_name(
    Gauge("wallet_card_top_up_streams", "Open streams that send the changes of a top-up to a subscriber."),
    "wallet_card_watchers",
)
CIRCUIT = Enum(
    "wallet_card_acquirer_circuit",
    "State of the circuit breaker of the acquirer: closed lets calls pass, opened refuses them, half-opened lets one "
    "trial call pass.",
    states=STATES,
)
INTEGRITY = Gauges(
    violations=Gauge("wallet_card_integrity_violations", "Violations that the last finished integrity check found."),
    pending=with_old_name(
        Gauge("wallet_card_integrity_pending", "Top-ups that were not final at the last finished integrity check."),
        "wallet_card_integrity_behind",
    ),
    finished=Gauge(
        "wallet_card_integrity_finished_timestamp_seconds",
        "Time at which the last finished integrity check ended; 0: none has ended yet.",
    ),
)
