"""Schemathesis hooks for the GraphQL schema and the REST contract, loaded with SCHEMATHESIS_HOOKS."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gateway.policy import REST_RULES
from wallet.luhn import has_valid_check_digit
from wallet.money import DEFAULT_CURRENCY, EXPONENTS

_MAX_DIGITS: Final = 12
"""Maximum number of digits before the decimal point. An amount with so many digits is below the limit of a transfer."""

schemathesis.graphql.scalar("Secret", st.sampled_from(["4242424242424242", "123", "", "x"]).map(nodes.String))
schemathesis.graphql.scalar("DateTime", st.datetimes().map(lambda at: nodes.String(at.isoformat() + "Z")))

REFUSALS_BY_STATE: Final = frozenset(
    {
        "ACCOUNT_NOT_FOUND",
        "ACCOUNT_CLOSED",
        "ACCOUNT_FROZEN",
        "ACCOUNT_NOT_EMPTY",
        "TRANSFER_NOT_FOUND",
        "TOP_UP_NOT_FOUND",
        "INSUFFICIENT_FUNDS",
        "FLOOR_ABOVE_BALANCE",
        "CURRENCY_MISMATCH",
        "TOP_UP_LIMIT_EXCEEDED",
        "IDEMPOTENCY_CONFLICT",
        "REFERENCE_USED",
        "LEDGER_RESTORED",
    }
)
"""Codes of the refusals that depend on stored data. A valid request may get them."""

CALLER: Final = "FUZZ_CALLER"
"""Environment variable with the role of the caller; empty for an anonymous caller."""

_TEXT: Final = "must not contain (control characters|a card number).*"
"""Messages about texts of transfers. The contract states these rules in the description of `description`."""
_CURSOR: Final = "must be a cursor from an earlier response"

RULES_IN_WORDS: Final[Mapping[str, re.Pattern[str]]] = {
    "recipientId": re.compile("must differ from the sender's account"),
    "after": re.compile(_CURSOR),
    "before": re.compile(f"{_CURSOR}|must not be combined with after"),
    "at": re.compile("give either `at` or `version`"),
    "version": re.compile("give either `at` or `version`"),
    "minAmount": re.compile("must not be above maxAmount"),
    "from": re.compile("must be before to"),
    "metadataKey": re.compile(f"{_TEXT}|is required with metadataValue"),
    "metadataValue": re.compile(f"{_TEXT}|is required with metadataKey"),
    "description": re.compile(_TEXT),
    "reference": re.compile(_TEXT),
    "reason": re.compile(f"{_TEXT}|must not be empty"),
    "text": re.compile(_TEXT),
    "metadata": re.compile(f"{_TEXT}|must not have an empty key|must have at most (64|128) characters"),
    "uniqueReference": re.compile("needs a reference"),
    "Authorization": re.compile("must be sent once: remove the other values"),  # generated tokens may contain commas
    "Idempotency-Key": re.compile("must be sent once; the value is one key several times.*"),
}
"""By field, the messages about rules that the contract states in words. A schema cannot state these rules, because they
compare several values, or a value with stored data."""


@schemathesis.hook
def before_call(_: object, case: Any, __: object) -> None:
    """Make amount, currency and card of a valid body obey the rules that the contract states in words only."""
    if case.meta is None or not case.meta.generation.mode.is_positive or not isinstance(case.body, dict):
        return
    changes: dict[str, object] = {}
    currency = case.body.get("currency", DEFAULT_CURRENCY)
    if currency not in EXPONENTS:
        changes["currency"] = currency = DEFAULT_CURRENCY
    if "amount" in case.body:
        changes["amount"] = _valid_amount(case.body["amount"], EXPONENTS[currency])
    if "card" in case.body:
        changes["card"] = _valid_card(case.body["card"])
    case.body = case.body | changes


def _valid_amount(amount: str, decimals: int) -> str:
    """Return an amount between zero and the limit of a transfer."""
    whole, _, fraction = amount.partition(".")
    valid = ".".join(filter(None, (whole[-_MAX_DIGITS:], fraction[:decimals])))
    return valid if valid.strip("0.") else "1"


def _valid_card(card: Mapping[str, Any]) -> dict[str, object]:
    """Return a card that is not expired and has a valid check digit. Its month and year are integers, not floats."""
    number, cvv = card["number"], card["cvv"]
    digits = 4 if number.startswith(("34", "37")) else 3
    return {
        "number": next(each for digit in range(10) if has_valid_check_digit(each := f"{number[:-1]}{digit}")),
        "expiryMonth": int(card["expiryMonth"]),
        "expiryYear": datetime.now(UTC).year + 1 + int(card["expiryYear"]) % 19,
        "cvv": (cvv + cvv)[:digits],
    }


@schemathesis.check
def valid_request_is_accepted(ctx: Any, response: schemathesis.Response, case: Any) -> bool | None:
    """Run schemathesis' check `positive_data_acceptance`, except on refusals that valid requests may get.

    These refusals have a code of `REFUSALS_BY_STATE`, or messages of `RULES_IN_WORDS`, or the caller's role does not
    allow the call.
    """
    if response.status_code >= HTTPStatus.BAD_REQUEST and _is_allowed(response.json(), case.operation.label):
        return None
    return positive_data_acceptance(ctx, response, case)


def _is_allowed(problem: Mapping[str, Any], operation: str) -> bool:
    code, caller, rule = problem["code"], os.environ.get(CALLER, ""), REST_RULES[operation]
    if code == "INVALID_INPUT":
        return all(_is_stated_in_words(**violation) for violation in problem["fields"])
    if code == "UNAUTHENTICATED":
        return not caller and not rule.is_public
    if code == "CONTENT_TOO_LARGE":
        return not caller  # only a verified caller may send a large body
    if code == "PERMISSION_DENIED":
        return caller not in rule.roles
    return code in REFUSALS_BY_STATE


def _is_stated_in_words(field: str, message: str) -> bool:
    return field in RULES_IN_WORDS and RULES_IN_WORDS[field].fullmatch(message) is not None


@schemathesis.check
def no_internal_error(ctx: object, response: schemathesis.Response, case: object) -> None:
    """Fail on HTTP server errors, on GraphQL errors with the code INTERNAL, and on GraphQL errors without a code."""
    assert response.status_code < 500
    if not response.content:
        return
    codes = [error.get("extensions", {}).get("code") for error in response.json().get("errors", ())]
    assert "INTERNAL" not in codes
    assert None not in codes
