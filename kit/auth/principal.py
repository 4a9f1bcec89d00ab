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

from kit.auth.keys import ALGORITHM, Key, KeySet
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
    def believed_until(self) -> float:
        """When the token ends here, where the clock may be a little behind the issuer's."""
        return self.expires_at + _CLOCK_SKEW_SECONDS

    @property
    def reads_all(self) -> bool:
        """Whether it may read what is others'."""
        return self.is_service or self.moves_all or Role.OPERATOR in self.roles

    @property
    def moves_all(self) -> bool:
        """Whether it may move, open and close what is others'."""
        return Role.ADMIN in self.roles

    @property
    def scope(self) -> str:
        """What idempotency keys are scoped by."""
        return f"{self.issuer}|{self.subject}"


class _Believed(NamedTuple):
    """A token that was found good, and what it was found good by."""

    principal: Principal
    keys: KeySet
    key: Key


class Verifier:
    """Turns tokens into principals.

    A token is believed when it is signed by a key that its own issuer publishes now, names the audience, and has
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
        self._believed: OrderedDict[str, _Believed] = OrderedDict()
        self._swept_at = time.time()

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: AuthSettings) -> AsyncIterator[Self]:
        """A verifier by the keys that the settings name, which it follows while they change.

        Raises:
            NoKeySetError, OSError: a file has no keys. An address need not answer yet.
        """
        async with AsyncExitStack() as stack:
            jwks, algorithm = settings.auth_jwks, settings.auth_algorithm
            users = KeySet.of_file(jwks, algorithm) if isinstance(jwks, Path) else KeySet.of_url(str(jwks), algorithm)
            keys = {settings.auth_issuer: await stack.enter_async_context(users)}
            for name, file in settings.auth_services.items():
                keys[name] = await stack.enter_async_context(KeySet.of_file(file))
            claim, audience = settings.auth_roles_claim, settings.auth_audience
            yield cls(settings.auth_issuer, keys, audience, algorithm=algorithm, roles_claim=claim)

    @property
    def users_keys(self) -> dict[str, list[Mapping[str, str]]] | None:
        """The key set of the users' issuer as it is known here; None while it is not known yet."""
        return self._keys[self._users].document

    async def ready(self) -> None:
        """Returns when the users' keys are known.

        Raises:
            Unavailable: they have never been read.
        """
        await self._keys[self._users].known()

    async def verify(self, token: str) -> Principal:
        """The caller that a compact JWT stands for. One that was seen before is answered at once.

        Raises:
            Unauthenticated: the token is not to be believed; says why.
            Unavailable: its issuer's keys have never been read.
        """
        believed = self._believed.get(token)
        if believed is not None and believed.keys.has(believed.key):
            self._believed.move_to_end(token)
        else:
            believed = await self._read(token)
            self._remember(token, believed)
        if believed.principal.believed_until < time.time():
            self._believed.pop(token, None)
            raise Unauthenticated("the token has expired; get a new one")
        return believed.principal

    async def _read(self, token: str) -> _Believed:
        try:
            return await self._decode(token)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired; get a new one") from None
        except (jwt.PyJWTError, OverflowError) as error:  # an `exp` may be no time at all
            raise Unauthenticated(f"the token is not valid: {type(error).__name__}") from None

    async def _decode(self, token: str) -> _Believed:
        unverified = jwt.decode(token, options={"verify_signature": False})
        issuer = unverified.get("iss")
        if not isinstance(issuer, str) or issuer not in self._keys:
            raise jwt.InvalidIssuerError
        keys = self._keys[issuer]
        is_service = issuer != self._users
        key = await keys.find(jwt.get_unverified_header(token).get("kid"))
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
        return _Believed(Principal(issuer, claims["sub"], is_service, float(claims["exp"]), roles), keys, key)

    def _remember(self, token: str, believed: _Believed) -> None:
        now = time.time()
        if now - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = now
            over = [known for known, each in self._believed.items() if each.principal.believed_until < now]
            for known in over:
                del self._believed[known]
        self._believed[token] = believed
        self._believed.move_to_end(token)
        if len(self._believed) > _CACHED_TOKENS:
            self._believed.popitem(last=False)


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
