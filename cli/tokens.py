"""The tokens of whoever sits at a development stack."""

from enum import StrEnum
from pathlib import Path
from typing import Final

import httpx

from stack.plan import PASSWORD

_TIMEOUT_SECONDS: Final = 10.0


class SeedUser(StrEnum):
    """The owners of the seed accounts, and those who look after the system."""

    ALICE = "alice"
    BOB = "bob"
    OPERATOR = "operator"
    ADMIN = "admin"


class NoTokenError(Exception):
    """There is none to be had. The message is for people, and says what to do."""


def development_token(user: SeedUser, data: Path, gateway: str) -> str:
    """A token for a user of the stack on this data folder, who signs in at its gateway; valid for twelve hours.

    Raises:
        NoTokenError: there is no stack, or it does not let the user in.
    """
    password = data / "keys" / f"{PASSWORD}.secret"
    if not password.exists():
        raise NoTokenError(
            f"there is no development password in {data}: run `make up` first, or name its folder with DATA=… (--data)"
        )
    credentials = {"username": user.value, "password": password.read_text()}
    try:
        answer = httpx.post(f"{gateway}/auth/login", json=credentials, timeout=_TIMEOUT_SECONDS, trust_env=False)
        told = answer.json()
    except (httpx.HTTPError, ValueError):
        raise NoTokenError(
            f"{gateway} does not answer as the wallet: run `make up` first, or name its port with PORT=… (--port)"
        ) from None
    if not answer.is_success:
        raise NoTokenError(f"{gateway} does not let {user} in: {told.get('detail', answer.status_code)}")
    token: str = told["accessToken"]
    return token
