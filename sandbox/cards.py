"""Test cards and their behaviour. `docs/reference/test-cards.md` lists the same cards; a test compares the two."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Final

from openapi.acquirer import Brand, DeclineCode
from sandbox.behaviours import Behaviour, Fault, FaultKind, Step, WebhookDelivery

APPROVE: Final = Behaviour("approve", "every step succeeds, as for each valid number that is not in this table")

CARDS: Final[Mapping[str, Behaviour]] = {
    "4242424242424242": APPROVE,
    "5555555555554444": APPROVE,
    "2200000000000004": APPROVE,
    "378282246310005": APPROVE,
    "6200000000000005": APPROVE,
    "4000000000000002": Behaviour(
        "decline-do-not-honor",
        "declined: DO_NOT_HONOR",
        decline=DeclineCode.do_not_honor,
    ),
    "4000000000009995": Behaviour(
        "decline-insufficient-funds",
        "declined: INSUFFICIENT_FUNDS",
        decline=DeclineCode.insufficient_funds,
    ),
    "4000000000000069": Behaviour(
        "decline-expired-card",
        "declined: EXPIRED_CARD",
        decline=DeclineCode.expired_card,
    ),
    "4000000000009979": Behaviour(
        "decline-stolen-card",
        "declined: STOLEN_CARD",
        decline=DeclineCode.stolen_card,
    ),
    "4000000000010019": Behaviour(
        "authorize-timeout-before",
        "every authorization times out and is not executed",
        faults={Step.AUTHORIZE: Fault(FaultKind.TIMEOUT_BEFORE)},
    ),
    "4000000000010027": Behaviour(
        "authorize-timeout-after",
        "every authorization times out but is executed; a query returns the payment",
        faults={Step.AUTHORIZE: Fault(FaultKind.TIMEOUT_AFTER)},
    ),
    "4000000000010035": Behaviour(
        "authorize-late",
        "every authorization times out and is executed a moment after the merchant has disconnected, unless its key is "
        "cancelled before",
        faults={Step.AUTHORIZE: Fault(FaultKind.LATE)},
    ),
    "4000000000010043": Behaviour(
        "authorize-503-twice",
        "the first two authorizations with a key get 503, the third is approved",
        faults={Step.AUTHORIZE: Fault(FaultKind.UNAVAILABLE, times=2)},
    ),
    "4000000000010050": Behaviour(
        "authorize-503",
        "every authorization gets 503",
        faults={Step.AUTHORIZE: Fault(FaultKind.UNAVAILABLE)},
    ),
    "4000000000020018": Behaviour(
        "capture-timeout-before",
        "the first capture times out and is not executed; a retry with the same key captures the amount",
        faults={Step.CAPTURE: Fault(FaultKind.TIMEOUT_BEFORE, times=1)},
    ),
    "4000000000020026": Behaviour(
        "capture-timeout-after",
        "the first capture times out but is executed; a retry with the same key returns the captured payment",
        faults={Step.CAPTURE: Fault(FaultKind.TIMEOUT_AFTER, times=1)},
    ),
    "4000000000020034": Behaviour(
        "capture-503-twice",
        "the first two captures with a key get 503, the third captures the amount",
        faults={Step.CAPTURE: Fault(FaultKind.UNAVAILABLE, times=2)},
    ),
    "4000000000020042": Behaviour(
        "capture-refused",
        "captures are refused permanently, so the payment can only be voided",
        refuses=frozenset({Step.CAPTURE}),
    ),
    "4000000000030017": Behaviour(
        "void-timeout-after",
        "captures are refused permanently; the first void times out but is executed",
        refuses=frozenset({Step.CAPTURE}),
        faults={Step.VOID: Fault(FaultKind.TIMEOUT_AFTER, times=1)},
    ),
    "4000000000040016": Behaviour(
        "refund-timeout-after",
        "the first refund times out but is executed",
        faults={Step.REFUND: Fault(FaultKind.TIMEOUT_AFTER, times=1)},
    ),
    "4000000000040024": Behaviour(
        "refund-refused",
        "refunds are refused permanently",
        refuses=frozenset({Step.REFUND}),
    ),
    "4000000000050015": Behaviour(
        "webhooks-twice",
        "each webhook is delivered twice",
        webhooks=WebhookDelivery.TWICE,
    ),
    "4000000000050023": Behaviour(
        "webhooks-reversed",
        "webhooks are held until the payment has not changed for a moment, then delivered newest first",
        webhooks=WebhookDelivery.REVERSED,
    ),
    "4000000000050031": Behaviour(
        "webhooks-late",
        "each webhook is delivered a moment late",
        webhooks=WebhookDelivery.LATE,
    ),
}

BEHAVIOURS_BY_NAME: Final[Mapping[str, Behaviour]] = {behaviour.name: behaviour for behaviour in CARDS.values()}


@dataclass(frozen=True, slots=True)
class Card:
    """Stored data of a card: neither its number nor its security code."""

    token: str
    brand: Brand
    last_four: str
    behaviour: Behaviour


def find_card_error(number: str, expiry: tuple[int, int], cvv: str, today: date) -> str | None:
    """Return why the card is not valid, without any of its digits; None if it is valid.

    Args:
        number: the card number, digits only.
        expiry: year and month of the last valid month.
        cvv: security code: four digits for Amex, three for others.
        today: the current date.
    """
    if not (number.isascii() and number.isdigit() and _passes_luhn(number)):
        return "number: is not a card number"
    if expiry < (today.year, today.month):
        return "expiryYear: the card has expired"
    if not (cvv.isascii() and cvv.isdigit() and len(cvv) == (4 if card_brand(number) is Brand.amex else 3)):
        return "cvv: must have four digits for Amex and three for other brands"
    return None


def card_brand(number: str) -> Brand:
    """Return the brand of a card number by its first digits (ISO/IEC 7812 ranges as published by the brands)."""
    two, four = int(number[:2]), int(number[:4])
    if number.startswith("4"):
        return Brand.visa
    if 2200 <= four <= 2204:  # noqa: PLR2004  issuer ranges
        return Brand.mir
    if 51 <= two <= 55 or 2221 <= four <= 2720:  # noqa: PLR2004
        return Brand.mastercard
    if two in {34, 37}:
        return Brand.amex
    if two in {62, 81}:
        return Brand.unionpay
    return Brand.other


# Not `wallet.luhn`: the sandbox stands for another company's system and shares only the contract and kit with ours.
def _passes_luhn(number: str) -> bool:
    doubled = (divmod(2 * int(digit), 10) for digit in number[-2::-2])
    return (sum(chain.from_iterable(doubled)) + sum(map(int, number[::-2]))) % 10 == 0
