"""Users, sign-ins and attempts at them: frozen values, and what may become of them."""

import base64
import hashlib
import hmac
import math
import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from wallet.errors import FieldViolation

_USERNAME: Final = re.compile(r"[a-z][a-z0-9._-]{2,63}")
_PASSWORD_LENGTHS: Final = range(12, 129)


class Role(StrEnum):
    """What a user is."""

    CUSTOMER = "CUSTOMER"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


@dataclass(frozen=True, slots=True)
class User:
    """A user. `id` is the `sub` of their tokens, and never changes."""

    id: UUID
    username: str
    role: Role
    created_at: datetime


def normalized(password: str) -> str:
    """The password as it is hashed: the same however its characters were composed (NFKC, as SP 800-63B has it)."""
    return unicodedata.normalize("NFKC", password)


def check_form(username: str, password: str) -> list[FieldViolation]:
    """What no name and no password can be. The password, which is not repeated, is as it was normalized."""
    violations = []
    if not _USERNAME.fullmatch(username):
        violations.append(
            FieldViolation("username", "must be 3 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter")
        )
    if len(password) not in _PASSWORD_LENGTHS:
        least, most = _PASSWORD_LENGTHS.start, _PASSWORD_LENGTHS.stop - 1
        violations.append(FieldViolation("password", f"must be {least} to {most} characters"))
    return violations


def check_new(username: str, password: str) -> list[FieldViolation]:
    """What a new user may not choose. Of a password only its length counts, as SP 800-63B has it, and that it is not
    the name.
    """
    violations = check_form(username, password)
    if password.casefold() == username.casefold():
        violations.append(FieldViolation("password", "must not be the name"))
    return violations


@dataclass(frozen=True, slots=True)
class LockOut:
    """How attempts at a name are slowed down.

    Attributes:
        free: how many in a row are let pass.
        first_seconds: how long the name is locked from the last of these on; twice as long from each one after it.
        longest_seconds: at most.
    """

    free: int = 5
    first_seconds: float = 1.0
    longest_seconds: float = 900.0

    def seconds(self, attempts: int) -> float:
        """How long a name is locked by so many attempts in a row."""
        if attempts < self.free:
            return 0.0
        doublings = min(attempts - self.free, 64)  # beyond, no float would do
        return min(self.longest_seconds, self.first_seconds * 2.0**doublings)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts at a name since it was last signed in by, whether there is such a user or not. When the last one did
    not lock the name, `locked_until` is when it began.
    """

    count: int
    locked_until: datetime

    def one_more(self, now: datetime, lock_out: LockOut) -> "Attempts | None":
        """With an attempt that begins now, which counts until it turns out to be right; None while the name is locked.

        It counts before its password is looked at, or guesses made at once would all be free.
        """
        if now < self.locked_until:
            return None
        count = self.count + 1
        return Attempts(count, now + timedelta(seconds=lock_out.seconds(count)))

    def seconds_left(self, now: datetime) -> int:
        """Until the name is unlocked, in whole seconds, at least one."""
        return max(1, math.ceil((self.locked_until - now).total_seconds()))


@dataclass(frozen=True, slots=True)
class SignIn:
    """One signing in, and all the refresh tokens that come from it, each the successor of another but for the first."""

    id: UUID
    user_id: UUID
    expires_at: datetime
    revoked_at: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether no token of it is worth anything any more."""
        return self.revoked_at is not None or now >= self.expires_at


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token as it is kept. Once used, it has the successor that was made of it."""

    id: UUID
    sign_in: UUID
    replaced_by: UUID | None = None
    replaced_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """It is used for the first time: as it is now, and its successor."""

    token: RefreshToken
    successor: RefreshToken


@dataclass(frozen=True, slots=True)
class Repeated:
    """It was used a moment ago: the answer was lost, or is still on its way. The successor is the same."""

    successor_id: UUID


@dataclass(frozen=True, slots=True)
class Reused:
    """It was used before, and not just now: somebody else has it, too. The sign-in as it ends by this."""

    sign_in: SignIn


@dataclass(frozen=True, slots=True)
class Over:
    """The sign-in has ended."""


Use = Replaced | Repeated | Reused | Over
"""What comes of using a refresh token."""


def used(sign_in: SignIn, token: RefreshToken, now: datetime, *, successor_id: UUID, grace_seconds: float) -> Use:
    """Uses a refresh token of a sign-in.

    Args:
        sign_in: that it came from.
        token: as it is.
        now: by the one clock that all times here are of.
        successor_id: of the token that will take its place, if none has yet.
        grace_seconds: for how long the same again is no theft.
    """
    if sign_in.is_over(now):
        return Over()
    if token.replaced_by is None or token.replaced_at is None:
        return Replaced(
            replace(token, replaced_by=successor_id, replaced_at=now), RefreshToken(successor_id, sign_in.id)
        )
    if now < token.replaced_at + timedelta(seconds=grace_seconds):
        return Repeated(token.replaced_by)
    return Reused(replace(sign_in, revoked_at=now))


def sealed(secret: bytes, id_: UUID) -> str:
    """The refresh token of an id, as its owner has it: what is kept of it alone is of no use."""
    seal = hmac.digest(secret, id_.bytes, hashlib.sha256)
    return f"{_text(id_.bytes)}.{_text(seal)}"


def opened(secret: bytes, token: str) -> UUID | None:
    """The id of a refresh token; None if it is none of ours."""
    try:
        id_ = UUID(bytes=base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    except ValueError:
        return None
    return id_ if hmac.compare_digest(sealed(secret, id_).encode(), token.encode(errors="replace")) else None


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
