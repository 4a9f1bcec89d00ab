"""Use cases of the identity service: registration, login, refresh, logout, password change, and reading users."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from kit.auth import principal
from kit.auth.principal import Principal
from kit.auth.tokens import TokenSigner
from subgraphs.identity.service import metrics
from subgraphs.identity.service.adapters.passwords import Passwords
from subgraphs.identity.service.adapters.repository import Repository
from subgraphs.identity.service.adapters.signing_keys import SigningKeys
from subgraphs.identity.service.domain.lockout import LockoutPolicy
from subgraphs.identity.service.domain.refresh_tokens import (
    Replay,
    ReuseDetected,
    Rotated,
    Session,
    SessionEnded,
    decode_token,
    encode_token,
)
from subgraphs.identity.service.domain.users import (
    Credentials,
    User,
    check_credentials,
    check_new_credentials,
    check_new_password,
    check_password_change,
    normalize_password,
)
from wallet import inputs
from wallet.errors import (
    InvalidCredentials,
    InvalidInput,
    TooManyAttempts,
    Unauthenticated,
    UserNotFound,
    WrongPassword,
)
from wallet.inputs import Secret

log = structlog.get_logger(__name__)

_PRUNE_INTERVAL_SECONDS: Final = 600.0
_PRUNE_ROWS: Final = 100
_CHANGE_GRACE_SECONDS: Final = 600.0
"""Time after a password change in which a repeat of the change succeeds."""


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """Content and lifetimes of tokens.

    Attributes:
        issuer: `iss` of access tokens.
        audience: `aud` of access tokens.
        refresh_secret: key of the HMAC in refresh tokens. A new key invalidates all refresh tokens.
        access_seconds: lifetime of an access token.
        session_seconds: lifetime of a session. The use of its refresh tokens does not extend it.
        grace_seconds: time after the first use of a refresh token in which the token may be used again.
    """

    issuer: str
    audience: str
    refresh_secret: SecretStr
    access_seconds: float = 600.0
    session_seconds: float = 30 * 86_400.0
    grace_seconds: float = 10.0

    @property
    def session_lifetime(self) -> timedelta:
        """`session_seconds` as a duration."""
        return timedelta(seconds=self.session_seconds)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Access token and refresh token of a session. The `repr` contains neither token."""

    access: str = field(repr=False)
    access_expires_at: datetime
    refresh: str = field(repr=False)
    refresh_expires_at: datetime


class Identity:
    """Use cases of the identity service. Only the password change and the reads of users need an access token."""

    def __init__(
        self,
        repository: Repository,
        passwords: Passwords,
        keys: SigningKeys,
        tokens: TokenPolicy,
        lockout: LockoutPolicy,
    ) -> None:
        self._repository = repository
        self._passwords = passwords
        self._keys = keys
        self._policy = tokens
        self._lockout = lockout

    async def register(self, username: str, password: Secret) -> User:
        """Create a user with the role CUSTOMER.

        Raises:
            InvalidInput: the user name or the password breaks a rule.
            UsernameTaken: another user has the name, in the same or another case.
            ResourceExhausted: too many passwords wait to be hashed.
            Unavailable: the outcome is unknown; a login shows whether the user was created.
        """
        password = Secret(normalize_password(password.text))
        if violations := check_new_credentials(username, password.text):
            raise InvalidInput(tuple(violations))
        with self._passwords.slot():
            password_hash = await self._passwords.hash(password)
        user = await self._repository.add_user(uuid7(), username, password_hash)
        metrics.REGISTERED.inc()
        log.info("user registered", user_id=str(user.id))
        return user

    async def authenticate(self, username: str, password: Secret) -> Tokens:
        """Log in: create a session.

        Raises:
            InvalidInput: no user can have this name or password.
            InvalidCredentials: the password is wrong or the user does not exist; both take the same time.
            TooManyAttempts: the name is locked; the password was not verified.
            ResourceExhausted: too many passwords wait to be hashed; the attempt does not count.
            Unavailable: the outcome is unknown; a retry is safe, and an unused session is harmless.
        """
        password = Secret(normalize_password(password.text))
        if violations := check_credentials(username, password.text):
            raise InvalidInput(tuple(violations))
        with self._passwords.slot():
            try:
                credentials = await self._repository.add_attempt(username, self._lockout)
            except TooManyAttempts:
                metrics.LOGINS.labels("locked").inc()
                raise
            is_correct = await self._passwords.verify(credentials.password_hash if credentials else None, password)
            if credentials is None or not is_correct:
                metrics.LOGINS.labels("wrong").inc()
                raise InvalidCredentials
            if self._passwords.is_weak(old_hash := credentials.password_hash):
                await self._repository.replace_hash(credentials.user.id, old_hash, await self._passwords.hash(password))
        token_id, lifetime = uuid7(), self._policy.session_lifetime
        session = await self._repository.add_session(credentials, uuid7(), token_id, lifetime=lifetime)
        if session is None:
            metrics.LOGINS.labels("wrong").inc()
            raise InvalidCredentials
        metrics.LOGINS.labels("right").inc()
        return self._issue_tokens(credentials.user, token_id, session)

    async def refresh(self, token: Secret) -> Tokens:
        """Exchange a refresh token for a new pair of tokens.

        A second use of the token within the grace period returns the refresh token that the first use returned. A later
        use ends the session.

        Raises:
            Unauthenticated: the token is not valid, or the session has ended. The error does not say which.
            Unavailable: the outcome is unknown; a retry is safe within the grace period.
        """
        token_id, policy = self._decode(token), self._policy
        rotation = token_id and await self._repository.rotate_token(
            token_id, uuid7(), lifetime=policy.session_lifetime, grace_seconds=policy.grace_seconds
        )
        if not rotation:
            raise _refuse_refresh("unknown")
        result, session, user = rotation
        match result:
            case Rotated():
                metrics.REFRESHES.labels("replaced").inc()
                return self._issue_tokens(user, result.successor.id, session)
            case Replay():
                metrics.REFRESHES.labels("repeated").inc()
                return self._issue_tokens(user, result.successor_id, session)
            case ReuseDetected():
                log.warning("refresh token reuse detected", user_id=str(user.id), session_id=str(session.id))
                raise _refuse_refresh("reused")
            case SessionEnded():
                raise _refuse_refresh("over")

    async def revoke(self, token: Secret) -> None:
        """Log out: end the session of a refresh token, if the token is valid. Safe to retry.

        Raises:
            Unavailable: the outcome is unknown.
        """
        if token_id := self._decode(token):
            await self._repository.revoke_session(token_id)

    async def change_password(self, caller: Principal, user_id: UUID, current: Secret, new: Secret) -> None:
        """Change the caller's password, and end the caller's sessions except the session of the caller's token.

        Raises:
            InvalidInput: a password breaks a rule.
            WrongPassword: the current password is wrong.
            TooManyAttempts: the name is locked; the password was not verified.
            UserNotFound: no user has this id, for example because another issuer issued the caller's token.
            ResourceExhausted: too many passwords wait to be hashed; the attempt does not count.
            Unavailable: the outcome is unknown; a retry is safe for ten minutes.
        """
        current, new = Secret(normalize_password(current.text)), Secret(normalize_password(new.text))
        violations = check_password_change(current.text, new.text)
        user = (await self._repository.get_users([user_id])).get(user_id)
        if user is None:
            raise UserNotFound(caller.subject)
        violations += check_new_password(user.username, new.text)
        if violations:
            raise InvalidInput(tuple(violations))
        with self._passwords.slot():
            try:
                credentials = await self._repository.add_attempt(user.username, self._lockout)
            except TooManyAttempts:
                metrics.PASSWORD_CHANGES.labels("locked").inc()
                raise
            while credentials is not None:
                if await self._is_repeated_change(credentials, new):
                    await self._repository.delete_attempts(user)
                    metrics.PASSWORD_CHANGES.labels("repeated").inc()
                    return
                if not await self._passwords.verify(credentials.password_hash, current):
                    metrics.PASSWORD_CHANGES.labels("wrong").inc()
                    log.warning("password change refused", user_id=str(user.id))
                    raise WrongPassword
                new_hash = await self._passwords.hash(new)
                kept = _parse_session(caller)
                ended = await self._repository.change_password(credentials, new_hash, kept_session=kept)
                if ended is not None:
                    metrics.PASSWORD_CHANGES.labels("changed").inc()
                    log.info("password changed", user_id=str(user.id), ended_sessions=ended)
                    return
                credentials = await self._repository.get_credentials(user.id)  # another change came first
        raise UserNotFound(caller.subject)

    async def _is_repeated_change(self, credentials: Credentials, new: Secret) -> bool:
        """Return whether a recent change has already stored the new password.

        Then the client probably repeats the change because it has lost the response.
        """
        return credentials.has_changed_within(_CHANGE_GRACE_SECONDS) and await self._passwords.verify(
            credentials.password_hash, new
        )

    async def get_user(self, caller: Principal, id_: UUID) -> User:
        """Return a user.

        Raises:
            UserNotFound: the user does not exist, or the caller may not read this user.
        """
        user = (await self.batch_get_users(caller, [id_])).get(id_)
        if user is None:
            raise UserNotFound(str(id_))
        return user

    async def batch_get_users(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, User]:
        """Return the users that exist and that the caller may read, by id."""
        readable = [id_ for id_ in ids if caller.can_read_all or caller.subject == str(id_)]
        return await self._repository.get_users(readable) if readable else {}

    async def prune_forever(self) -> None:
        """Delete expired sessions and old login attempts every ten minutes.

        Before, the remaining lifetime of sessions is bounded, in case the clock of the database was ahead.

        Raises:
            Unavailable: the database is unavailable.
        """
        while True:
            while await self._repository.bound_expiry(self._policy.session_lifetime, limit=_PRUNE_ROWS):
                pass
            while await self._repository.prune(_PRUNE_ROWS):
                pass
            await asyncio.sleep(_PRUNE_INTERVAL_SECONDS)

    def _decode(self, token: Secret) -> UUID | None:
        return decode_token(self._refresh_secret, token.text)

    @property
    def _refresh_secret(self) -> bytes:
        return self._policy.refresh_secret.get_secret_value().encode()

    def _issue_tokens(self, user: User, token_id: UUID, session: Session) -> Tokens:
        """Return a new access token for the user and the session, and the refresh token whose id is `token_id`."""
        seconds = self._policy.access_seconds
        expires_at = datetime.fromtimestamp(int(time.time() + seconds), UTC)  # never later than `exp` of the token
        signer = TokenSigner(self._policy.issuer, self._keys.signing_key, self._policy.audience)
        access = signer.sign(str(user.id), seconds, [principal.Role[user.role.name]], session=str(session.id))
        return Tokens(access, expires_at, encode_token(self._refresh_secret, token_id), session.expires_at)


def _parse_session(caller: Principal) -> UUID | None:
    """Return the session of the caller's token; None if the token names no session of this service."""
    try:
        return inputs.parse_uuid(caller.session or "")
    except ValueError:
        return None


def _refuse_refresh(outcome: str) -> Unauthenticated:
    """Count the outcome in the metrics, and return the error, which is the same for all outcomes."""
    metrics.REFRESHES.labels(outcome).inc()
    return Unauthenticated("the refresh token is not valid; sign in again")
