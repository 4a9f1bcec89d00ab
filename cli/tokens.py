"""Access tokens for the users of a development stack."""

from enum import StrEnum
from pathlib import Path
from typing import Final

import httpx

from stack.plan import PASSWORD

_TIMEOUT_SECONDS: Final = 10.0


class SeedUser(StrEnum):
    """Users that every development stack is seeded with."""

    ALICE = "alice"
    BOB = "bob"
    OPERATOR = "operator"
    ADMIN = "admin"


class NoTokenError(Exception):
    """The login failed. The message contains the reason."""


def development_token(user: SeedUser, data: Path, gateway: str) -> str:
    """Log in at a running development stack and return the access token, valid for twelve hours.

    Args:
        user: the seeded user to log in as.
        data: the stack's data folder, which holds the development password.
        gateway: the base URL of the stack's gateway.

    Raises:
        NoTokenError: no stack uses this folder, no gateway responds at this address, or the login is refused.
    """
    password = data / "keys" / f"{PASSWORD}.secret"
    if not password.exists():
        raise NoTokenError(
            f"there is no development password in {data}: run `make up` first, or name its folder with DATA=… (--data)"
        )
    try:
        credentials = {"username": user.value, "password": password.read_text()}
    except OSError as error:
        raise NoTokenError(f"the development password cannot be read: {error}") from None
    try:
        answer = httpx.post(f"{gateway}/auth/login", json=credentials, timeout=_TIMEOUT_SECONDS, trust_env=False)
        body = answer.json()
        if answer.is_success:
            return str(body["accessToken"])
        problem = body.get("detail", answer.status_code)
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):
        raise NoTokenError(
            f"no wallet responds at {gateway}: run `make up` first, or name its port with PORT=… (--port). If the "
            "gateway is stopped on purpose, sign a token yourself: docs/how-to/restore-the-ledger.md"
        ) from None
    raise NoTokenError(f"{gateway} refuses the login of {user}: {problem}")
