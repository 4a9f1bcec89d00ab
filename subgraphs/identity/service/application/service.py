"""The identity service's use cases: who signs in, and what they are given."""

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
from subgraphs.identity.service.adapters.keys import Keys
from subgraphs.identity.service.adapters.passwords import Passwords
from subgraphs.identity.service.adapters.repository import Repository
from subgraphs.identity.service.domain import model as domain
from subgraphs.identity.service.domain.model import LockOut, Over, Repeated, Replaced, Reused, User
from wallet.errors import InvalidCredentials, InvalidInput, TooManyAttempts, Unauthenticated, UserNotFound
from wallet.inputs import Secret

log = structlog.get_logger(__name__)

_PRUNE_SECONDS: Final = 600.0
_PRUNE_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms tokens are given.

    Attributes:
        issuer: the `iss` of access tokens.
        audience: their `aud`.
        refresh_secret: seals refresh tokens. Another one makes all that are out worthless.
        access_seconds: how long an access token lives.
        refresh_seconds: how long a sign-in lasts, however often it is refreshed.
        grace_seconds: for how long the same refresh token again is no theft.
    """

    issuer: str
    audience: str
    refresh_secret: SecretStr
    access_seconds: float = 600.0
    refresh_seconds: float = 30 * 86_400.0
    grace_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a user who signed in is given."""

    access: str = field(repr=False)
    access_expires_at: datetime
    refresh: str = field(repr=False)
    refresh_expires_at: datetime


class Identity:
    """What callers may do. Whoever has no token yet can become a user, sign in, stay so and sign out."""

    def __init__(
        self, repository: Repository, passwords: Passwords, keys: Keys, terms: Terms, lock_out: LockOut
    ) -> None:
        self._repository = repository
        self._passwords = passwords
        self._keys = keys
        self._terms = terms
        self._lock_out = lock_out

    async def register(self, username: str, password: Secret) -> User:
        """A new user, who is a customer.

        Raises:
            InvalidInput, UsernameTaken, ResourceExhausted: nobody was made.
            Unavailable: it is not known; signing in tells.
        """
        password = Secret(domain.normalized(password.text))
        if violations := domain.check_new(username, password.text):
            raise InvalidInput(tuple(violations))
        with self._passwords.place():
            password_hash = await self._passwords.hash(password)
        user = await self._repository.add(uuid7(), username, password_hash)
        metrics.REGISTERED.inc()
        log.info("a user was made", user_id=str(user.id))
        return user

    async def authenticate(self, username: str, password: Secret) -> Tokens:
        """A new sign-in of the user with this name and password.

        Raises:
            InvalidInput: no user can have such a name or password.
            InvalidCredentials: this one has not; takes as long whether there is such a user or not.
            TooManyAttempts: the name is locked, and the password was not looked at.
            ResourceExhausted: too many passwords wait to be looked at; the attempt does not count.
            Unavailable: a sign-in that nobody knows of may have been made, which does no harm.
        """
        password = Secret(domain.normalized(password.text))
        if violations := domain.check_form(username, password.text):
            raise InvalidInput(tuple(violations))
        with self._passwords.place():
            try:
                found = await self._repository.attempt(username, self._lock_out)
            except TooManyAttempts:
                metrics.SIGN_INS.labels("locked").inc()
                raise
            user, password_hash = found or (None, None)
            is_right = await self._passwords.verify(password_hash, password)
            if user is None or password_hash is None or not is_right:
                metrics.SIGN_INS.labels("wrong").inc()
                raise InvalidCredentials
            if self._passwords.is_weak(password_hash):
                await self._repository.rehash(user.id, password_hash, await self._passwords.hash(password))
        token_id, lifetime = uuid7(), timedelta(seconds=self._terms.refresh_seconds)
        sign_in = await self._repository.sign_in(user, uuid7(), token_id, lifetime=lifetime)
        metrics.SIGN_INS.labels("right").inc()
        return self._tokens(user, token_id, sign_in.expires_at)

    async def refresh(self, token: Secret) -> Tokens:
        """A new pair for a refresh token: the same refresh token again within some seconds, and never after.

        Raises:
            Unauthenticated: it means nothing, or nothing any more: which of the two is not told.
            Unavailable: the outcome is unknown; a retry is safe.
        """
        token_id = self._opened(token)
        grace_seconds = self._terms.grace_seconds
        used = token_id and await self._repository.use(token_id, uuid7(), grace_seconds=grace_seconds)
        if not used:
            raise _refused("unknown")
        use, sign_in, user = used
        match use:
            case Replaced():
                metrics.REFRESHES.labels("replaced").inc()
                return self._tokens(user, use.successor.id, sign_in.expires_at)
            case Repeated():
                metrics.REFRESHES.labels("repeated").inc()
                return self._tokens(user, use.successor_id, sign_in.expires_at)
            case Reused():
                log.warning(
                    "a refresh token was used twice; its sign-in is ended",
                    user_id=str(user.id),
                    sign_in=str(sign_in.id),
                )
                raise _refused("reused")
            case Over():
                raise _refused("over")

    async def revoke(self, token: Secret) -> None:
        """Ends the sign-in that a refresh token came from, if there is one. Safe to repeat.

        Raises:
            Unavailable: the outcome is unknown; a retry is safe.
        """
        if token_id := self._opened(token):
            await self._repository.revoke(token_id)

    async def user(self, caller: Principal, id_: UUID) -> User:
        """A user.

        Raises:
            UserNotFound: there is none, or it is not for the caller to see.
        """
        user = (await self.users(caller, [id_])).get(id_)
        if user is None:
            raise UserNotFound(str(id_))
        return user

    async def users(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, User]:
        """Those of the users that exist and that the caller may see."""
        seen = [id_ for id_ in ids if caller.can_read_all or caller.subject == str(id_)]
        return await self._repository.get(seen) if seen else {}

    async def tidy(self) -> None:
        """Forgets what is over, for ever.

        Raises:
            Unavailable: the database is away.
        """
        while True:
            while await self._repository.prune(_PRUNE_AT_ONCE):
                pass
            await asyncio.sleep(_PRUNE_SECONDS)

    def _opened(self, token: Secret) -> UUID | None:
        return domain.opened(self._refresh_secret, token.text)

    @property
    def _refresh_secret(self) -> bytes:
        return self._terms.refresh_secret.get_secret_value().encode()

    def _tokens(self, user: User, token_id: UUID, refresh_expires_at: datetime) -> Tokens:
        """The pair as it is given. The role is the user's of now: of what was granted, refreshing tells."""
        seconds = self._terms.access_seconds
        expires_at = datetime.fromtimestamp(int(time.time() + seconds), UTC)  # by the token itself, it is no sooner
        signer = TokenSigner(self._terms.issuer, self._keys.signing, self._terms.audience)
        access = signer.sign(str(user.id), seconds, [principal.Role[user.role.name]])
        return Tokens(access, expires_at, domain.sealed(self._refresh_secret, token_id), refresh_expires_at)


def _refused(outcome: str) -> Unauthenticated:
    """The one answer to a refresh token that is none; why, only we are told."""
    metrics.REFRESHES.labels(outcome).inc()
    return Unauthenticated("the refresh token is not valid; sign in again")
