"""Who is calling: tokens in, `Principal` out."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import jwt

from kit.auth.keys import ALGORITHM, KeySet, PublicKey
from kit.runtime.settings import Algorithm, AuthSettings
from wallet.errors import Unauthenticated

_CLOCK_SKEW_SECONDS: Final = 5
_CACHED_TOKENS: Final = 4096
_SWEEP_SECONDS: Final = 60.0
"""How often the tokens that have expired are forgotten, seen again or not."""


class Role(StrEnum):
    """What a user is. Nobody is anything by default."""

    CUSTOMER = "customer"
    """Reads, and moves money from, their own accounts."""
    OPERATOR = "operator"
    """Reads all accounts, moves nothing."""
    ADMIN = "admin"
    """Reads and moves all, and has the services prove and repair themselves."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller. `subject` is unique within `issuer`.

    Attributes:
        roles: what a user is, as the token says; a service has none.
    """

    issuer: str
    subject: str
    is_service: bool
    expires_at: float
    roles: frozenset[Role] = frozenset()

    @property
    def valid_until(self) -> float:
        """When the token ends here, where the clock may be a little behind the issuer's."""
        return self.expires_at + _CLOCK_SKEW_SECONDS

    @property
    def can_read_all(self) -> bool:
        """Whether it may read what is others'."""
        return self.is_service or self.can_write_all or Role.OPERATOR in self.roles

    @property
    def can_write_all(self) -> bool:
        """Whether it may move, open and close what is others'."""
        return Role.ADMIN in self.roles

    @property
    def scope(self) -> str:
        """What idempotency keys are scoped by."""
        return f"{self.issuer}|{self.subject}"


class _CachedToken(NamedTuple):
    """A token that was found good, and what it was found good by."""

    principal: Principal
    keys: KeySet
    key: PublicKey


class TokenVerifier:
    """Turns tokens into principals.

    A token is cached when it is signed by a key that its own issuer publishes now, names the audience, and has
    neither expired nor yet to begin. The issuer of users and each service have keys of their own: no key can speak for
    another issuer. With which algorithm an issuer signs is said here, never by a token.
    """

    def __init__(
        self,
        users: str,
        keys: Mapping[str, KeySet],
        audience: str,
        *,
        algorithm: Algorithm = ALGORITHM,
        roles_claim: str = "roles",
    ) -> None:
        """Args:
        users: the issuer of users' tokens; every other issuer in `keys` is a service that speaks for itself.
        keys: public keys by issuer.
        audience: what each token must be meant for.
        algorithm: of users' tokens.
        roles_claim: where users' tokens have their roles: the name of a claim, or a path with dots.
        """
        self._users = users
        self._keys = keys
        self._audience = audience
        self._algorithm = algorithm
        self._roles_claim = roles_claim
        # A caller sends the same token many times. The one that was longest not seen makes room.
        self._cache: OrderedDict[str, _CachedToken] = OrderedDict()
        self._swept_at = time.time()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: AuthSettings) -> AsyncIterator[Self]:
        """A verifier by the keys that the settings name, which it follows while they change.

        Raises:
            NoKeySetError, OSError: a file has no keys. An address need not answer yet.
        """
        async with AsyncExitStack() as stack:
            jwks, algorithm = settings.auth_jwks, settings.auth_algorithm
            users = (
                KeySet.from_file(jwks, algorithm) if isinstance(jwks, Path) else KeySet.from_url(str(jwks), algorithm)
            )
            keys = {settings.auth_issuer: await stack.enter_async_context(users)}
            for name, file in settings.auth_services.items():
                keys[name] = await stack.enter_async_context(KeySet.from_file(file))
            claim, audience = settings.auth_roles_claim, settings.auth_audience
            yield cls(settings.auth_issuer, keys, audience, algorithm=algorithm, roles_claim=claim)

    @property
    def user_jwks(self) -> dict[str, list[Mapping[str, str]]] | None:
        """The key set of the users' issuer as it is known here; None while it is not known yet."""
        return self._keys[self._users].jwks

    async def check_ready(self) -> None:
        """Returns when the users' keys are known.

        Raises:
            Unavailable: they have never been read.
        """
        await self._keys[self._users].check_loaded()

    async def verify(self, token: str) -> Principal:
        """The caller that a compact JWT stands for. One that was seen before is answered at once.

        Raises:
            Unauthenticated: the token is not to be cached; says why.
            Unavailable: its issuer's keys have never been read.
        """
        cached = self._cache.get(token)
        if cached is not None and cached.keys.is_current(cached.key):
            self._cache.move_to_end(token)
        else:
            cached = await self._read(token)
            self._store(token, cached)
        if cached.principal.valid_until < time.time():
            self._cache.pop(token, None)
            raise Unauthenticated("the token has expired; get a new one")
        return cached.principal

    async def _read(self, token: str) -> _CachedToken:
        try:
            return await self._decode(token)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired; get a new one") from None
        except (jwt.PyJWTError, OverflowError) as error:  # an `exp` may be no time at all
            raise Unauthenticated(f"the token is not valid: {type(error).__name__}") from None

    async def _decode(self, token: str) -> _CachedToken:
        unverified = jwt.decode(token, options={"verify_signature": False})
        issuer = unverified.get("iss")
        if not isinstance(issuer, str) or issuer not in self._keys:
            raise jwt.InvalidIssuerError
        keys = self._keys[issuer]
        is_service = issuer != self._users
        key = await keys.get_key(jwt.get_unverified_header(token).get("kid"))
        claims = jwt.decode(
            token,
            key.public,
            algorithms=[ALGORITHM if is_service else self._algorithm],
            audience=self._audience,
            issuer=issuer,
            leeway=_CLOCK_SKEW_SECONDS,
            options={"require": ["exp", "iat", "sub"]},
        )
        if not claims["sub"]:
            raise jwt.InvalidTokenError
        if is_service and claims["sub"] != issuer:
            raise jwt.InvalidTokenError
        roles = frozenset[Role]() if is_service else _roles(_claim(claims, self._roles_claim))
        return _CachedToken(Principal(issuer, claims["sub"], is_service, float(claims["exp"]), roles), keys, key)

    def _store(self, token: str, cached: _CachedToken) -> None:
        now = time.time()
        if now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            over = [known for known, each in self._cache.items() if each.principal.valid_until < now]
            for known in over:
                del self._cache[known]
        self._cache[token] = cached
        self._cache.move_to_end(token)
        if len(self._cache) > _CACHED_TOKENS:
            self._cache.popitem(last=False)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of this name, or what is at the end of the path; None if there is nothing."""
    if path in claims:  # a name may have dots of its own, as an address has
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _roles(claim: Any) -> frozenset[Role]:
    """Those that are known of the names in a claim; none of what is no array of names."""
    names = {name.lower() for name in claim if isinstance(name, str)} if isinstance(claim, list) else ()
    return frozenset(role for role in Role if role in names)
