"""Behaviour of test cards: declines, refusals, faults and webhook delivery."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from openapi.acquirer import DeclineCode


class Step(StrEnum):
    """Operation on a payment."""

    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class FaultKind(StrEnum):
    """Kind of fault. The merchant does not know the outcome afterwards.

    "No response" means: none until the merchant disconnects or the simulated time-out has passed, then status 503.
    """

    UNAVAILABLE = "unavailable"  # 503 at once, the operation is not executed
    TIMEOUT_BEFORE = "timeout before"  # no response, the operation is not executed
    TIMEOUT_AFTER = "timeout after"  # no response, but the operation is executed
    LATE = "late"  # no response; the operation is executed after the merchant has disconnected


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault of the first `times` requests with a key. If `times` is None, every request has the fault, also replays."""

    kind: FaultKind
    times: int | None = None

    def applies_to(self, attempt: int) -> bool:
        """Return whether this attempt fails; the first attempt is 1."""
        return self.times is None or attempt <= self.times


class WebhookDelivery(StrEnum):
    """How a payment's webhooks are delivered."""

    PROMPT = "prompt"
    TWICE = "twice"
    REVERSED = "reversed"  # held until the payment has not changed for a while, then delivered newest first
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Behaviour of a test card. The defaults approve everything.

    Attributes:
        name: stored in the database; never changes.
        meaning: description for people.
        decline: reason with which every authorization is declined.
        refuses: steps that are refused permanently.
        faults: faults by step.
        webhooks: delivery of the payment's webhooks.
    """

    name: str
    meaning: str
    decline: DeclineCode | None = None
    refuses: frozenset[Step] = frozenset()
    faults: Mapping[Step, Fault] = field(default_factory=dict)
    webhooks: WebhookDelivery = WebhookDelivery.PROMPT
