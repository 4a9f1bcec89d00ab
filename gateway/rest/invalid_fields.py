"""The error for a request whose fields break the contract."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from kit.http.invalid_requests import describe_error
from wallet.errors import FieldViolation, InvalidInput

_MAX_ERRORS: Final = 20
"""Maximum number of reported errors of one request."""

PATTERN_MESSAGES: Final[Mapping[str, str]] = {
    r"^[0-9]{1,18}(\.[0-9]{1,4})?$": "must be a decimal number such as 10.00, with at most 4 decimals",
    r"^(-[0-9]{1,18}(\.[0-9]{1,4})?|0(\.0{1,4})?)$": "must be 0 or a negative number such as -100.00",
    r"^[A-Z]{3}$": "must be an ISO 4217 currency such as RUB",
    r"^[A-Za-z][A-Za-z0-9._-]{2,63}$": "must be 3 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', and begin with a letter",
}
"""Messages by regular expression of the contract. A test fails if a regular expression has no message."""


def invalid_input(errors: Sequence[Mapping[str, Any]], body: type[BaseModel] | None) -> InvalidInput:
    """Return the error for a request.

    Args:
        errors: errors of pydantic, each with its place in `loc`: `("path", name)` or `("body", …)`.
        body: model of the request body.
    """
    violations = (FieldViolation(*describe_error(each, PATTERN_MESSAGES, body)) for each in errors[:_MAX_ERRORS])
    return InvalidInput(tuple(dict.fromkeys(violations)))
