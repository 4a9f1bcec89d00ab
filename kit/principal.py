"""Who is calling: tokens in, `Principal` out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Self

import jwt

from kit.settings import AuthSettings
from wallet.errors import Unauthenticated

ALGORITHM: Final = "EdDSA"
"""The only signature algorithm that is believed. Ed25519: a verification costs about 100 µs."""

_CLOCK_SKEW_SECONDS: Final = 5
_CACHED_TOKENS: Final = 4096


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


class Verifier:
    """Turns tokens into principals.

    A token is believed when it is signed (Ed25519) by a key of its own issuer, names the audience, and has neither
    expired nor yet to begin. The issuer of users and each service have keys of their own: no key can speak for another
    issuer.
    """

    def __init__(self, users: str, keys: Mapping[str, jwt.PyJWKSet], audience: str) -> None:
        """Args:
        users: the issuer of users' tokens; every other issuer in `keys` is a service that speaks for itself.
        keys: public keys by issuer.
        audience: what each token must be meant for.
        """
        self._users = users
        self._keys = keys
        self._audience = audience
        # A caller sends the same token many times. Bounded; expiry is checked on every call, cached or not.
        self._verify_signature = lru_cache(maxsize=_CACHED_TOKENS)(self._decode)

    @classmethod
    def from_settings(cls, settings: AuthSettings) -> Self:
        """A verifier of the keys in the files that the settings name."""
        files = {settings.auth_issuer: settings.auth_jwks, **settings.auth_services}
        keys = {issuer: jwt.PyJWKSet.from_json(file.read_text()) for issuer, file in files.items()}
        return cls(settings.auth_issuer, keys, settings.auth_audience)

    def verify(self, token: str) -> Principal:
        """The caller that a compact JWT stands for.

        Raises:
            Unauthenticated: the token is not to be believed; says why.
        """
        try:
            principal = self._verify_signature(token)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired; get a new one") from None
        except (jwt.PyJWTError, OverflowError) as error:  # an `exp` may be no time at all
            raise Unauthenticated(f"the token is not valid: {type(error).__name__}") from None
        if principal.expires_at + _CLOCK_SKEW_SECONDS < time.time():
            raise Unauthenticated("the token has expired; get a new one")
        return principal

    def _decode(self, token: str) -> Principal:
        unverified = jwt.decode(token, options={"verify_signature": False})
        issuer = unverified.get("iss")
        if not isinstance(issuer, str) or issuer not in self._keys:
            raise jwt.InvalidIssuerError
        kid = jwt.get_unverified_header(token).get("kid")
        key = next((key for key in self._keys[issuer].keys if key.key_id == kid), None)
        if key is None:
            raise jwt.InvalidKeyError
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=self._audience,
            issuer=issuer,
            leeway=_CLOCK_SKEW_SECONDS,
            options={"require": ["exp", "iat", "sub"]},
        )
        if not claims["sub"]:
            raise jwt.InvalidTokenError
        is_service = issuer != self._users
        if is_service and claims["sub"] != issuer:
            raise jwt.InvalidTokenError
        roles = frozenset() if is_service else _roles(claims.get("roles"))
        return Principal(issuer, claims["sub"], is_service, float(claims["exp"]), roles)


def _roles(claim: Any) -> frozenset[Role]:
    """Those that are known of the names in a claim; none of what is no array of names."""
    names = {name.lower() for name in claim if isinstance(name, str)} if isinstance(claim, list) else ()
    return frozenset(role for role in Role if role in names)
