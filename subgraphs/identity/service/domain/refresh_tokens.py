"""Sessions, and the rotation of their refresh tokens."""

import base64
import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Session:
    """One login and its sequence of refresh tokens. Each token is the successor of the previous token."""

    id: UUID
    user_id: UUID
    expires_at: datetime
    revoked_at: datetime | None = None

    def has_ended(self, now: datetime) -> bool:
        """Return whether the session has expired or was revoked; its tokens are not valid then."""
        return self.revoked_at is not None or now >= self.expires_at

    def bounded(self, now: datetime, lifetime: timedelta) -> "Session":
        """Return the session with at most `lifetime` left. More is left only if the clock was ahead at the login."""
        return replace(self, expires_at=min(self.expires_at, now + lifetime))


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """Stored refresh token. After its first use it has a successor."""

    id: UUID
    session_id: UUID
    replaced_by: UUID | None = None
    replaced_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rotated:
    """First use: the used token with its successor's id, and the successor."""

    token: RefreshToken
    successor: RefreshToken


@dataclass(frozen=True, slots=True)
class Replay:
    """Repeated use within the grace period, such as a retry after a lost response. The successor stays the same."""

    successor_id: UUID


@dataclass(frozen=True, slots=True)
class ReuseDetected:
    """Repeated use after the grace period: the token was probably stolen. `session` is the revoked session."""

    session: Session


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session has expired or was revoked."""


RotationResult: TypeAlias = Rotated | Replay | ReuseDetected | SessionEnded
"""Result of using a refresh token."""


def rotate(
    session: Session, token: RefreshToken, now: datetime, *, successor_id: UUID, grace_seconds: float
) -> RotationResult:
    """Use a refresh token.

    Args:
        session: session of the token.
        token: stored token.
        now: current time, from the same clock as all stored times.
        successor_id: id that the successor gets if the token has no successor yet.
        grace_seconds: time after the first use in which another use is a replay, not a reuse. If the stored time of the
            first use is later than `now` by at least this time, the clock was ahead when it was stored; another use is
            then a reuse too.
    """
    if session.has_ended(now):
        return SessionEnded()
    if token.replaced_by is None or token.replaced_at is None:
        return Rotated(
            replace(token, replaced_by=successor_id, replaced_at=now), RefreshToken(successor_id, session.id)
        )
    if abs(now - token.replaced_at) < timedelta(seconds=grace_seconds):
        return Replay(token.replaced_by)
    return ReuseDetected(replace(session, revoked_at=now))


def encode_token(secret: bytes, id_: UUID) -> str:
    """Return the refresh token with this id as the client gets it: the text of the id and its HMAC.

    The database has the id only, so a copy of the database is not enough to build a token.
    """
    mac = hmac.digest(secret, id_.bytes, hashlib.sha256)
    return f"{_encode_base64(id_.bytes)}.{_encode_base64(mac)}"


def decode_token(secret: bytes, token: str) -> UUID | None:
    """Return the id of a refresh token; None if the HMAC is not valid."""
    try:
        id_ = UUID(bytes=base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    except ValueError:
        return None
    return id_ if hmac.compare_digest(encode_token(secret, id_).encode(), token.encode(errors="replace")) else None


def _encode_base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
