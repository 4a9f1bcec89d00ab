"""Users, and the rules of user names and passwords."""

import re
import string
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from subgraphs.identity.service.domain.common_passwords import is_common
from wallet.errors import FieldViolation

_USERNAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{2,63}")
_TO_LOWER_CASE: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_PASSWORD_LENGTHS: Final = range(12, 129)
_MAX_NORMALIZED_INPUT: Final = 4 * _PASSWORD_LENGTHS.stop
"""Maximum length of a text that is normalized. Normalization combines at most four characters into one, so a longer
text stays too long for a password.
"""


class Role(StrEnum):
    """Role of a user."""

    CUSTOMER = "CUSTOMER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


@dataclass(frozen=True, slots=True)
class User:
    """User. `id` is the `sub` of the user's tokens, and never changes. `username` is the name as it was registered."""

    id: UUID
    username: str
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """User with the stored password. The `repr` does not contain the hash.

    Attributes:
        user: the user.
        password_hash: Argon2id hash.
        password_changed_at: time of the last change, which identifies the version of the password. A new hash of the
            same password does not change this time.
        read_at: time at which the credentials were read, from the same clock as `password_changed_at`.
    """

    user: User
    password_hash: str = field(repr=False)
    password_changed_at: datetime
    read_at: datetime

    def has_changed_within(self, seconds: float) -> bool:
        """Return whether the password was changed within a number of seconds. A registration is not a change."""
        was_changed = self.password_changed_at != self.user.created_at
        return was_changed and abs(self.read_at - self.password_changed_at) < timedelta(seconds=seconds)


def fold_username(username: str) -> str:
    """Return the form in which user names are compared: ASCII letters in lower case, like `lower` of the C locale."""
    return username.translate(_TO_LOWER_CASE)


def normalize_password(password: str) -> str:
    """Return the password in the Unicode form NFKC. As SP 800-63B recommends, passwords are hashed in this form.

    A text that is too long for a password is returned unchanged, because normalization takes quadratic time.
    """
    return password if len(password) > _MAX_NORMALIZED_INPUT else unicodedata.normalize("NFKC", password)


def check_credentials(username: str, password: str) -> list[FieldViolation]:
    """Return the violations of a login: a user name or a password that no user can have.

    Args:
        username: user name.
        password: normalized password; no message contains it.
    """
    violations = []
    if not _USERNAME.fullmatch(username):
        violations.append(
            FieldViolation("username", "must be 3 to 64 of a-z, A-Z, 0-9, '.', '_' and '-', and begin with a letter")
        )
    violations.extend(_check_length("password", password))
    return violations


def check_new_credentials(username: str, password: str) -> list[FieldViolation]:
    """Return the violations of a registration.

    As SP 800-63B recommends, there are no composition rules: a password must have an allowed length, and be neither the
    user name nor a common password.

    Args:
        username: user name.
        password: normalized password; no message contains it.
    """
    return [*check_credentials(username, password), *_check_choice("password", username, password)]


def check_password_change(current: str, new: str) -> list[FieldViolation]:
    """Return the violations of a password change that do not depend on the user.

    Args:
        current: normalized current password; no message contains it.
        new: normalized new password; no message contains it.
    """
    violations = [*_check_length("currentPassword", current), *_check_length("newPassword", new)]
    if current == new:
        violations.append(FieldViolation("newPassword", "must differ from the current password"))
    return violations


def check_new_password(username: str, new: str) -> list[FieldViolation]:
    """Return the violations of a password change that depend on the user; see `check_new_credentials`."""
    return _check_choice("newPassword", username, new)


def _check_length(field_name: str, password: str) -> list[FieldViolation]:
    if len(password) in _PASSWORD_LENGTHS:
        return []
    least, most = _PASSWORD_LENGTHS.start, _PASSWORD_LENGTHS.stop - 1
    return [FieldViolation(field_name, f"must be {least} to {most} characters")]


def _check_choice(field_name: str, username: str, password: str) -> list[FieldViolation]:
    if len(password) not in _PASSWORD_LENGTHS:
        return []
    if password.casefold() == username.casefold():
        return [FieldViolation(field_name, "must not be the name")]
    if is_common(password):
        return [FieldViolation(field_name, "is one of the most common passwords; choose another one")]
    return []
