"""What a test card can do to its payments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from openapi.acquirer import DeclineCode


class Step(StrEnum):
    """What a merchant asks for."""

    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class Trouble(StrEnum):
    """How a request goes wrong. Each ends in 503, or in silence first: for the merchant the outcome is not known."""

    UNAVAILABLE = "unavailable"  # at once, and nothing is done
    SILENT_BEFORE = "silent before"  # nothing is done
    SILENT_AFTER = "silent after"  # it is done
    SILENT_THEN_LATE = "silent, then late"  # it is done some moments after the merchant has given up


@dataclass(frozen=True, slots=True)
class Fault:
    """Trouble with the first requests under a key; without `times` with every one, replays too."""

    trouble: Trouble
    times: int | None = None

    def strikes(self, attempt: int) -> bool:
        """Whether it meets this attempt; the first is 1."""
        return self.times is None or attempt <= self.times


class Delivery(StrEnum):
    """How a payment's webhooks come."""

    PROMPT = "prompt"
    TWICE = "twice"
    REVERSED = "reversed"  # held until the payment has been quiet for some moments, then the newest first
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a card does. Nothing said means that all goes well.

    Attributes:
        name: what the books remember it by; it never changes.
        meaning: for people.
        decline: why every authorization is declined.
        refuses: the steps that are refused for good.
        faults: the trouble on the way, by step.
        webhooks: how they come.
    """

    name: str
    meaning: str
    decline: DeclineCode | None = None
    refuses: frozenset[Step] = frozenset()
    faults: Mapping[Step, Fault] = field(default_factory=dict)
    webhooks: Delivery = Delivery.PROMPT
