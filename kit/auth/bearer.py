"""Bearer tokens in requests (RFC 6750): the `Authorization` value (section 2.1), and the challenge in the response to a
refused request (section 3).
"""

import re
from collections.abc import Sequence
from typing import Final

from wallet.errors import Code, InvalidInput, TokenTooLong, Unauthenticated, WalletError

AUTHORIZATION: Final = "Authorization"

_SCHEME: Final = "bearer"
_SPACE: Final = " \t"
"""Characters that HTTP allows around a header's value (RFC 9110, 5.5)."""
_HAS_BEARER: Final = re.compile(rf"(?:^|,)\s*{_SCHEME}(?:[\s,]|$)", re.IGNORECASE)
"""Matches a value that has the scheme Bearer at its start or behind a comma.

A proxy may join several headers by commas.
"""
_CHALLENGE: Final = 'Bearer realm="wallet"'


def parse_bearer(value: str) -> str:
    """Return the token of an `Authorization` value; an empty text if the value has none, as in `Bearer` alone.

    The scheme is matched without regard to case, and only spaces separate it from the token (RFC 9110, 11.1 and 11.4).
    A token never contains a comma, so a value with the scheme Bearer and a comma consists of several lines that a proxy
    has joined.

    Raises:
        InvalidInput: the value consists of several joined lines.
        Unauthenticated: the value does not begin with the scheme Bearer.
    """
    if "," in value and _HAS_BEARER.search(value):
        raise repeated_authorization()
    scheme, token = _split(value)
    if scheme.lower() == _SCHEME:
        return token
    if not scheme:
        return ""
    raise Unauthenticated("the scheme must be Bearer: write `Bearer` before the token, as in `Bearer TOKEN`")


def has_other_scheme(value: str) -> bool:
    """Return whether an `Authorization` value has only credentials of other schemes than Bearer, as in `Basic YTpi`."""
    _, credentials = _split(value)
    return bool(credentials) and not _HAS_BEARER.search(value)


def parse_bearer_lines(values: Sequence[str]) -> str:
    """Return the token in the `Authorization` lines of an HTTP request; an empty text if there is none.

    Raises:
        InvalidInput: there are several lines, or a proxy has joined several into one, so it is not clear which token
            counts.
        Unauthenticated: the value does not begin with the scheme Bearer.
    """
    if len(values) > 1:
        raise repeated_authorization()
    return parse_bearer(values[0]) if values else ""


def repeated_authorization() -> InvalidInput:
    """Return the error of a request with several `Authorization` values."""
    return InvalidInput.for_field(AUTHORIZATION, "must be sent once: remove the other values")


def challenge(error: WalletError) -> str | None:
    """Return the value of `WWW-Authenticate` for an error; None if the error is not about the caller's token.

    The challenge names the error only if the request has a token (RFC 6750, 3.1).
    """
    if isinstance(error, TokenTooLong) or (isinstance(error, Unauthenticated) and error.token_error):
        return f'{_CHALLENGE}, error="invalid_token"'
    if isinstance(error, InvalidInput) and any(each.field == AUTHORIZATION for each in error.violations):
        return f'{_CHALLENGE}, error="invalid_request"'
    return _CHALLENGE if error.code is Code.UNAUTHENTICATED else None


def _split(value: str) -> tuple[str, str]:
    """Return the scheme and the credentials of an `Authorization` value."""
    scheme, _, credentials = value.strip(_SPACE).partition(" ")
    return scheme, credentials.lstrip(" ")
