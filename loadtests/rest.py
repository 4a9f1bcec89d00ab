"""Conversion between ledger requests and the REST API. It does no I/O, so clients of any kind can use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from loadtests.history.calls import (
    CONFLICT,
    Answer,
    LedgerRequest,
    NoEffect,
    Receipt,
    Refusal,
    TopUpState,
    UnknownOutcome,
)
from wallet.luhn import has_valid_check_digit

GOOD: Final = "good"
CARDS: Final = {GOOD: "4242424242424242", "declined": "4000000000000002", "late": "4000000000010043"}
"""Sandbox cards (`docs/reference/test-cards.md`) by their behaviour: "late" is approved at the third attempt.

Each account has its own good card (`good_card_number`), because the wallet limits concurrent attempts with one card.
"""

_UNKNOWN: Final = {0: "UNAVAILABLE", 500: "INTERNAL", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
"""HTTP statuses that leave the outcome unknown. 0 means that there was no response."""


@dataclass(frozen=True, slots=True)
class Post:
    """POST without its headers. Send the key of the ledger request as `Idempotency-Key`."""

    path: str
    body: dict[str, Any]


def post_for(request: LedgerRequest) -> Post:
    """Return the POST for a transfer or a top-up.

    The key of a top-up starts with the name of its card and a dash, so that a retry uses the same card. The key has
    the name and not the number, because keys are stored.
    """
    body = request.body
    money = {"amount": str(body.amount), "currency": body.currency}
    if request.key.operation == "top-up":
        name, _, _ = request.key.key.partition("-")
        number = good_card_number(body.recipient_id) if name == GOOD else CARDS[name]
        card = {"number": number, "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}
        return Post(f"/accounts/{body.recipient_id}/topup", money | {"card": card})
    words = {"description": body.description, "reference": body.reference, "uniqueReference": body.is_reference_unique}
    given = {name: value for name, value in words.items() if value}
    return Post(f"/accounts/{body.sender_id}/transfers", money | given | {"recipientId": str(body.recipient_id)})


def good_card_number(account: UUID) -> str:
    """Return the number of an account's own card, which the sandbox approves."""
    digits = f"4{account.int % 10**14:014}"
    return next(number for digit in range(10) if has_valid_check_digit(number := f"{digits}{digit}"))


def parse_answer(
    request: LedgerRequest, status: int, response: Mapping[str, Any], headers: Mapping[str, str]
) -> Answer:
    """Convert a response of the REST API.

    Args:
        request: request that was sent.
        status: HTTP status; 0 if there was no response.
        response: JSON body; empty if there was none.
        headers: headers of the response.
    """
    if status in _UNKNOWN:
        return UnknownOutcome(response.get("code", _UNKNOWN[status]))
    is_replay = headers.get("Idempotency-Replayed") == "true"
    if status == HTTPStatus.CREATED:
        amount = Decimal(response["amount"])
        return Receipt(UUID(response["id"]), request.body.sender_id, None, None, amount, is_replay)
    if status == HTTPStatus.ACCEPTED:
        transfer_id = response.get("transferId")
        transfer = UUID(transfer_id) if transfer_id else None
        return TopUpState(UUID(response["id"]), response["status"], transfer, is_replay)
    return parse_error(request, response.get("code", str(status)), response, is_replay=is_replay)


def batch_item_for(request: LedgerRequest) -> dict[str, Any]:
    """Return a transfer as an item of a batch."""
    sides = {"senderId": str(request.body.sender_id), "idempotencyKey": request.key.key}
    return post_for(request).body | sides


def parse_batch(
    requests: Sequence[LedgerRequest], status: int, response: Mapping[str, Any], headers: Mapping[str, str]
) -> list[Answer]:
    """Convert a response to a batch; arguments as in `parse_answer`."""
    if status != HTTPStatus.OK:
        return [parse_answer(each, status, response, headers) for each in requests]
    return [parse_result(*pair) for pair in zip(requests, response["results"], strict=True)]


def parse_result(request: LedgerRequest, result: Mapping[str, Any]) -> Answer:
    """Convert the result of one transfer of a batch."""
    if "transfer" in result:
        made = result["transfer"]
        amount, sender = Decimal(made["amount"]), request.body.sender_id
        return Receipt(UUID(made["id"]), sender, None, None, amount, result["replayed"])
    problem = result["problem"]
    answer = parse_error(request, problem["code"], problem, is_replay=result["replayed"])
    if isinstance(answer, UnknownOutcome) is not (result["outcome"] == "UNKNOWN"):
        raise ValueError(f"{problem['code']} has the outcome {result['outcome']}")
    return answer


def parse_error(request: LedgerRequest, code: str, data: Mapping[str, Any], *, is_replay: bool | None = None) -> Answer:
    """Convert an error, given its stable code, its data, and whether it was marked as a replay."""
    if code in _UNKNOWN.values():
        return UnknownOutcome(code)
    if code == "INSUFFICIENT_FUNDS":
        amounts = {name: data[name] for name in ("needed", "available", "currency")}
        return Refusal(code, {"account_id": str(request.body.sender_id), **amounts}, is_replay)
    if code == "REFERENCE_USED":
        used = {"account_id": str(request.body.sender_id), "reference": request.body.reference}
        return Refusal(code, used, is_replay)
    return Refusal(code, is_replay=is_replay) if code == CONFLICT else NoEffect(code)


def check_read(status: int, response: Mapping[str, Any], _: Mapping[str, str]) -> Answer | None:
    """Return the error of a read, or None if it succeeded."""
    return None if status == HTTPStatus.OK else NoEffect(response.get("code", _UNKNOWN.get(status, str(status))))
