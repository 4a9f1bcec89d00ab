"""The REST API's requests and answers as wishes and what came of them. Values only: whoever sends them has a client."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from loadtests.history.calls import CONFLICT, Answer, Nothing, Receipt, Refusal, TopUp, Unknown, Wish

GOOD: Final = "good"
CARDS: Final = {GOOD: "4242424242424242", "declined": "4000000000000002", "late": "4000000000010043"}
"""Of the sandbox (`docs/reference/test-cards.md`), by what becomes of them: the last is answered at the third time."""

_UNKNOWN: Final = {0: "UNAVAILABLE", 500: "INTERNAL", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
"""Statuses after which nobody knows what was done. 0: there was no answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """A POST, but for who sends it. Its idempotency key is the wish's."""

    path: str
    body: dict[str, Any]


def request(wish: Wish) -> Request:
    """What asks for a transfer, or for a top-up. The key of a top-up begins with the name of its card and a dash, so
    that it is asked for again by the same card; a number has no place in a key, which is kept.
    """
    body = wish.body
    money = {"amount": str(body.amount), "currency": body.currency}
    if wish.key.operation == "top-up":
        name, _, _ = wish.key.key.partition("-")
        card = {"number": CARDS[name], "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}
        return Request(f"/accounts/{body.recipient_id}/topup", money | {"card": card})
    return Request(f"/accounts/{body.sender_id}/transfers", money | {"recipientId": str(body.recipient_id)})


def answer(wish: Wish, status: int, told: Mapping[str, Any]) -> Answer:
    """What the answer says of the wish.

    Args:
        wish: what was asked for.
        status: of HTTP; 0 where there was no answer.
        told: the JSON of it; nothing where it was none.
    """
    if status in _UNKNOWN:
        return Unknown(told.get("code", _UNKNOWN[status]))
    if status == HTTPStatus.CREATED:
        return Receipt(UUID(told["id"]), wish.body.sender_id, None, None, Decimal(told["amount"]))
    if status == HTTPStatus.ACCEPTED:
        transfer_id = told.get("transferId")
        return TopUp(UUID(told["id"]), told["status"], UUID(transfer_id) if transfer_id else None)
    return refused(wish, told.get("code", str(status)), told)


def refused(wish: Wish, code: str, told: Mapping[str, Any]) -> Answer:
    """What an error says of the wish, from its stable code and its data."""
    if code in _UNKNOWN.values():
        return Unknown(code)
    if code == "INSUFFICIENT_FUNDS":
        data = {name: told[name] for name in ("needed", "available", "currency")}
        return Refusal(code, {"account_id": str(wish.body.sender_id), **data})
    return Refusal(code) if code == CONFLICT else Nothing(code)


def read(status: int, told: Mapping[str, Any]) -> Answer | None:
    """What went wrong with a read, if anything did."""
    return None if status == HTTPStatus.OK else Nothing(told.get("code", _UNKNOWN.get(status, str(status))))
