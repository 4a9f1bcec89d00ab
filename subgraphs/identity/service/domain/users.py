"""Users, and the rules of user names and passwords."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from wallet.errors import FieldViolation

_USERNAME: Final = re.compile(r"[a-z][a-z0-9._-]{2,63}")
_PASSWORD_LENGTHS: Final = range(12, 129)


class Role(StrEnum):
    """Role of a user."""

    CUSTOMER = "CUSTOMER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


@dataclass(frozen=True, slots=True)
class User:
    """User. `id` is the `sub` of the user's tokens, and never changes."""

    id: UUID
    username: str
    role: Role
    created_at: datetime


def normalize_password(password: str) -> str:
    """Return the password in Unicode form NFKC, in which it is hashed (SP 800-63B)."""
    return unicodedata.normalize("NFKC", password)


def check_credentials(username: str, password: str) -> list[FieldViolation]:
    """Return the violations of a login: a user name or a password that no user can have.

    Args:
        username: user name.
        password: normalized password; no message contains it.
    """
    violations = []
    if not _USERNAME.fullmatch(username):
        violations.append(
            FieldViolation("username", "must be 3 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter")
        )
    if len(password) not in _PASSWORD_LENGTHS:
        least, most = _PASSWORD_LENGTHS.start, _PASSWORD_LENGTHS.stop - 1
        violations.append(FieldViolation("password", f"must be {least} to {most} characters"))
    return violations


def check_new_credentials(username: str, password: str) -> list[FieldViolation]:
    """Return the violations of a registration.

    As SP 800-63B recommends, a password has no composition rules: only its length counts, and it must not be the user
    name.

    Args:
        username: user name.
        password: normalized password; no message contains it.
    """
    violations = check_credentials(username, password)
    if password.casefold() == username.casefold():
        violations.append(FieldViolation("password", "must not be the name"))
    return violations
