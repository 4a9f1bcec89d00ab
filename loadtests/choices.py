"""Random choices of the users: accounts, amounts, cards, and which requests they send.

The seed in the plan of the run decides all choices.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto
from typing import Final

from loadtests import account_selection, rest
from loadtests.plan import Customer, Plan

_DUPLICATE_SHARE: Final = 0.05  # share of transfers that are sent twice at the same time, as by a double tap
_CONFLICT_SHARE: Final = 0.01  # share of transfers that are also sent with another amount and the same key
_QUOTED_SHARE: Final = 0.5  # share of requests that send the key in quotation marks, which the API removes
_WORDS_SHARE: Final = 0.1  # share of transfers with a description and a reference
_UNIQUE_SHARE: Final = 0.5  # share of these that ask for a unique reference
_REFERENCES: Final = 1_000  # number of different references of a customer
_CARDS: Final = (rest.GOOD,) * 7 + tuple(rest.CARDS)
"""Eight of these ten cards are good."""


class Read(Enum):
    """Kind of a read."""

    BALANCE = auto()
    OPERATIONS = auto()
    OVERVIEW = auto()


_READ_WEIGHTS: Final = {Read.BALANCE: 5, Read.OPERATIONS: 3, Read.OVERVIEW: 2}


@dataclass(frozen=True, slots=True)
class TransferChoice:
    """A transfer, and the requests that accompany it.

    Attributes:
        sender: customer who pays.
        recipient: customer who is paid.
        amount: amount in whole kopecks.
        is_duplicated: whether the request is also sent a second time, concurrently.
        is_contradicted: whether a request with another amount and the same key is also sent, concurrently.
        description: text for both customers; usually empty.
        reference: the sender's own id of the transfer; usually empty.
        is_reference_unique: whether the transfer is refused if the sender has used the reference.
    """

    sender: Customer
    recipient: Customer
    amount: Decimal
    is_duplicated: bool
    is_contradicted: bool
    description: str = ""
    reference: str = ""
    is_reference_unique: bool = False


@dataclass(frozen=True, slots=True)
class TopUpChoice:
    """A top-up; `card` is a name from `rest.CARDS`."""

    customer: Customer
    amount: Decimal
    card: str


class UserChoices:
    """Random choices of one user.

    They depend on nothing but the arguments. In particular they do not depend on responses, so with the same seed a
    user makes the same choices in the same order. How many choices it makes in a run depends on the speed of the
    system. Idempotency keys are not chosen here: they are always new.
    """

    def __init__(self, plan: Plan, scenario: str, process: int, number: int) -> None:
        """Args:
        plan: plan of the run, with its seed and its customers.
        scenario: name of the user's class.
        process: number of the Locust process.
        number: number of the user among the users of its class in its process.
        """
        user = f"{plan.seed}.{scenario}.{process}.{number}"
        self._rng = random.Random(user)  # noqa: S311  reproducible, no secret
        # `quotes_key` is called once per request, and retries depend on the responses. A generator of its own keeps
        # these calls from changing the other choices.
        self._forms = random.Random(f"{user}.keys")  # noqa: S311
        # A generator of its own, so that words do not change the amounts and the accounts of a seed.
        self._words = random.Random(f"{user}.words")  # noqa: S311
        self._customers = plan.customers
        select = account_selection.BY_NAME[plan.account_selection]
        self._pairs: Iterator[tuple[int, int]] = select(self._rng, len(plan.customers))

    def next_customer(self) -> Customer:
        """Return a customer, with equal probability."""
        return self._rng.choice(self._customers)

    def next_transfer(self) -> TransferChoice:
        """Return the next transfer. The plan's account selection chooses its two accounts."""
        sender, recipient = next(self._pairs)
        reference = str(self._words.randint(1, _REFERENCES)) if self._words.random() < _WORDS_SHARE else ""
        return TransferChoice(
            self._customers[sender],
            self._customers[recipient],
            Decimal(self._rng.randint(1, 2_000)) / 100,
            is_duplicated=self._rng.random() < _DUPLICATE_SHARE,
            is_contradicted=self._rng.random() < _CONFLICT_SHARE,
            description=f"load test, {reference}" if reference else "",
            reference=reference,
            is_reference_unique=bool(reference) and self._words.random() < _UNIQUE_SHARE,
        )

    def next_top_up(self) -> TopUpChoice:
        """Return the next top-up."""
        amount = Decimal(self._rng.randint(100, 10_000)) / 100
        return TopUpChoice(self.next_customer(), amount, self._rng.choice(_CARDS))

    def next_read(self) -> tuple[Read, Customer]:
        """Return the kind of the next read, and the customer who reads."""
        (kind,) = self._rng.choices(list(_READ_WEIGHTS), list(_READ_WEIGHTS.values()))
        return kind, self.next_customer()

    def quotes_key(self) -> bool:
        """Return whether the next request has its idempotency key in quotation marks."""
        return self._forms.random() < _QUOTED_SHARE
