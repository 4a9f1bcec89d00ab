"""The tokens of whoever sits at a development stack."""

from enum import StrEnum
from pathlib import Path
from typing import Final

from kit.principal import Role
from kit.tokens import Signer
from stack.plan import AUDIENCE, ISSUER
from stack.seed import OWNERS

_LIFETIME_SECONDS: Final = 12 * 3600.0


class SeedUser(StrEnum):
    """The owners of the seed accounts, and those who look after the system."""

    ALICE = "alice"
    BOB = "bob"
    OPERATOR = "operator"
    ADMIN = "admin"


class NoTokenError(Exception):
    """There is none to be had. The message is for people, and says what to do."""


def development_token(user: SeedUser, data: Path) -> str:
    """A token for a user of the stack on this data folder, valid for twelve hours.

    Raises:
        NoTokenError: there is no stack.
    """
    key = data / "keys" / "development.pem"
    if not key.exists():
        raise NoTokenError(
            f"there is no development key in {data}: run `make up` first, or name its folder with DATA=… (--data)"
        )
    if user in OWNERS:
        subject, role = OWNERS[user].user, Role.CUSTOMER
    else:
        subject, role = user.value, Role(user)
    return Signer.from_file(ISSUER, key, AUDIENCE).sign(subject, _LIFETIME_SECONDS, [role])
