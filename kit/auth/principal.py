"""Principals: verified callers, and the verification of their tokens."""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import jwt
from cachetools import LRUCache

from kit.auth.eddsa import verify_usual_token
from kit.auth.jwk import ALGORITHM, PublicKey
from kit.auth.keys import KeySet
from kit.runtime.settings import Algorithm, AuthSettings
from wallet.errors import TokenTooLong, Unauthenticated

DEFAULT_LEEWAY_SECONDS: Final = 5.0
"""Tolerated difference between the clocks of the issuer and of this process, unless `AUTH_LEEWAY_SECONDS` is set."""
_CACHED_TOKENS: Final = 4096
_CACHED_HEADERS: Final = 64
MAX_TOKEN_BYTES: Final = 8_192
"""Maximum length of a token in bytes. Every call has its caller's token in the metadata, whose size gRPC limits."""
_MAX_SUBJECT_LENGTH: Final = 255
_UNREADABLE: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""Errors of PyJWT for invalid tokens, also for parts of an unexpected type, such as a list in place of a number."""
_DEFECTS: Final = (
    (jwt.ImmatureSignatureError, "it is not valid yet: compare the clocks, or wait"),
    (jwt.InvalidAudienceError, "it is for another audience: get one for this service"),
    (jwt.InvalidIssuerError, "its issuer is not trusted here: get one from the configured issuer"),
    (jwt.InvalidKeyError, "its `kid` names none of the keys that its issuer publishes: get a new one"),
    (jwt.InvalidSignatureError, "its signature is wrong: get a new one"),
    (jwt.InvalidAlgorithmError, "its signature algorithm is not accepted: get one with the configured algorithm"),
    (jwt.MissingRequiredClaimError, "a required claim is missing: exp, iat, sub, iss and aud are required"),
    (jwt.DecodeError, "it is malformed: send the access token unchanged"),
)
"""Descriptions of a token's defects by PyJWT's error. The first entry that matches the error is used."""
_OTHER_DEFECT: Final = "a claim has an invalid value: get a new one"


class Role(StrEnum):
    """Role of a user. A user without roles has no access."""

    CUSTOMER = "customer"
    """Reads own accounts, and moves money from them."""
    OPERATOR = "operator"
    """Reads all accounts, and moves no money."""
    ADMIN = "admin"
    """Reads all accounts, moves money between them, and starts integrity checks and repairs."""


_ROLES: Final[Mapping[str, Role]] = {role.value: role for role in Role}


@dataclass(frozen=True, slots=True)
class Principal:
    """Verified caller: a user or a service.

    Attributes:
        issuer: `iss` of the token.
        subject: `sub` of the token, unique within the issuer.
        is_service: whether the caller is a service, which does not act on behalf of a user.
        expires_at: Unix time at which the token expires.
        roles: roles of a user; empty for a service.
        session: `sid` of the token: id of the login session; None if the claim is missing or not a text.
        leeway_seconds: tolerated difference between the clocks of the issuer and of this process.
    """

    issuer: str
    subject: str
    is_service: bool
    expires_at: float
    roles: frozenset[Role] = frozenset()
    session: str | None = None
    leeway_seconds: float = 0.0

    @property
    def valid_until(self) -> float:
        """Unix time until which the token is accepted: its expiry plus the tolerated difference of the clocks."""
        return self.expires_at + self.leeway_seconds

    def stream_seconds(self) -> float:
        """Return the seconds after which a client's stream ends.

        The stream ends at the token's expiry, or at `valid_until` if the expiry has passed. So a stream that starts
        before the expiry ends before the services refuse the token.
        """
        now = time.time()
        return (self.expires_at if now < self.expires_at else self.valid_until) - now

    @property
    def can_read_all(self) -> bool:
        """Whether the caller may read the accounts of other owners."""
        return self.is_service or self.can_write_all or Role.OPERATOR in self.roles

    @property
    def can_write_all(self) -> bool:
        """Whether the caller may open and close accounts of other owners, and move money from them."""
        return Role.ADMIN in self.roles

    @property
    def scope(self) -> str:
        """Scope of idempotency keys and of limits per caller: issuer and subject."""
        return f"{self.issuer}|{self.subject}"


class _CachedToken(NamedTuple):
    """Verified token with the key that verified it."""

    principal: Principal
    keys: KeySet
    key: PublicKey


class _UnverifiedToken(NamedTuple):
    """Token with its header and claims, and with the key set of the issuer that it names."""

    token: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    keys: KeySet

    @property
    def kid(self) -> object:
        return self.header.get("kid")


class TokenVerifier:
    """Verifies tokens (JWT) and returns their principals.

    A valid token is signed by a key that its issuer publishes now, names our audience, and is within its lifetime.
    Users have one issuer, and each service is its own issuer with its own keys, so no key can sign for another issuer.
    The signature algorithm is fixed per issuer; the algorithm that a token names is not trusted.
    """

    def __init__(
        self,
        users: str,
        keys: Mapping[str, KeySet],
        audience: str,
        *,
        algorithm: Algorithm = ALGORITHM,
        roles_claim: str = "roles",
        leeway_seconds: float = DEFAULT_LEEWAY_SECONDS,
    ) -> None:
        """Args:
        users: issuer of users' tokens. Every other issuer in `keys` is a service.
        keys: public keys by issuer.
        audience: `aud` that every token must name.
        algorithm: signature algorithm of users' tokens.
        roles_claim: name of the claim that lists the roles in users' tokens, or a path to it, with dots.
        leeway_seconds: tolerated difference between the clocks of an issuer and of this process.
        """
        self._users = users
        self._keys = keys
        self._audience = audience
        self._algorithm = algorithm
        self._roles_claim = roles_claim
        self._leeway = leeway_seconds
        self._cache: LRUCache[str, _CachedToken] = LRUCache(_CACHED_TOKENS)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: AuthSettings) -> AsyncIterator[Self]:
        """Open a verifier with the key sets that the settings name, and reload them while it is open.

        Raises:
            InvalidKeySetError, OSError: a key file cannot be read. A URL need not be available yet.
        """
        async with AsyncExitStack() as stack:
            jwks, algorithm = settings.auth_jwks, settings.auth_algorithm
            users = (
                KeySet.from_file(jwks, algorithm) if isinstance(jwks, Path) else KeySet.from_url(str(jwks), algorithm)
            )
            keys = {settings.auth_issuer: await stack.enter_async_context(users)}
            for name, file in settings.auth_services.items():
                keys[name] = await stack.enter_async_context(KeySet.from_file(file))
            yield cls(
                settings.auth_issuer,
                keys,
                settings.auth_audience,
                algorithm=algorithm,
                roles_claim=settings.auth_roles_claim,
                leeway_seconds=settings.auth_leeway_seconds,
            )

    @property
    def user_jwks(self) -> dict[str, list[Mapping[str, str]]] | None:
        """Key set of the users' issuer; None until its first read succeeds."""
        return self._keys[self._users].jwks

    async def check_ready(self) -> None:
        """Check that the users' keys have been read.

        Raises:
            Unavailable: no read has succeeded yet.
        """
        await self._keys[self._users].check_loaded()

    async def verify(self, token: str) -> Principal:
        """Return the principal of a compact JWT, from the cache if the token is in it.

        Raises:
            Unauthenticated: the token is not valid; the message says why.
            TokenTooLong: the token is longer than `MAX_TOKEN_BYTES`.
            Unavailable: the issuer's keys have never been read.
        """
        principal = self.verify_now(token)
        if principal is None:
            try:
                unverified = self._read(token)
                principal = self._verify_with_key(unverified, await unverified.keys.get_key(unverified.kid))
            except _UNREADABLE as error:
                raise _refusal(error) from None
        return principal

    def verify_now(self, token: str) -> Principal | None:
        """Return the principal of a token without waiting; None if the issuer's keys must be read first: use `verify`.

        Raises:
            Unauthenticated, TokenTooLong: as `verify`.
        """
        if (principal := self._find_verified(token)) is not None:
            return principal
        try:
            unverified = self._read(token)
            key = unverified.keys.find_key(unverified.kid)
            return None if key is None else self._verify_with_key(unverified, key)
        except _UNREADABLE as error:
            raise _refusal(error) from None

    def _find_verified(self, token: str) -> Principal | None:
        """Return the principal of a token in the cache; None if the token must be verified first.

        Raises:
            Unauthenticated: the token has expired.
        """
        try:
            cached: _CachedToken = self._cache[token]  # faster than `get`, which takes three times as long
        except KeyError:
            return None
        return self._check_lifetime(token, cached) if cached.keys.is_current(cached.key) else None

    def _check_lifetime(self, token: str, verified: _CachedToken) -> Principal:
        if verified.principal.valid_until < time.time():
            self._cache.pop(token, None)
            raise Unauthenticated.for_token("the token has expired; get a new one")
        return verified.principal

    def _read(self, token: str) -> _UnverifiedToken:
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenTooLong(str(MAX_TOKEN_BYTES))
        header, claims = _read_unverified(token)
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._keys:
            raise jwt.InvalidIssuerError
        return _UnverifiedToken(token, header, claims, self._keys[issuer])

    def _verify_with_key(self, unverified: _UnverifiedToken, key: PublicKey) -> Principal:
        """Verify a token, and add it to the cache."""
        token, header, claims, keys = unverified
        issuer: str = claims["iss"]
        is_service = issuer != self._users
        if key.ed25519 is None or not verify_usual_token(
            token, header, claims, key.ed25519, audience=self._audience, leeway_seconds=self._leeway
        ):
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[ALGORITHM if is_service else self._algorithm],
                audience=self._audience,
                issuer=issuer,
                leeway=self._leeway,
                options={"require": ["exp", "iat", "sub"]},
            )
        if not _is_subject(claims["sub"]):
            raise jwt.InvalidTokenError
        if is_service and claims["sub"] != issuer:
            raise jwt.InvalidTokenError
        roles = frozenset[Role]() if is_service else _parse_roles(_get_claim(claims, self._roles_claim))
        session = claims.get("sid")
        principal = Principal(
            issuer,
            claims["sub"],
            is_service,
            float(claims["exp"]),
            roles,
            session if isinstance(session, str) else None,
            self._leeway,
        )
        verified = self._cache[token] = _CachedToken(principal, keys, key)
        return self._check_lifetime(token, verified)


def _refusal(error: Exception) -> Unauthenticated:
    """Return the refusal for an error of an invalid token."""
    if isinstance(error, jwt.ExpiredSignatureError):
        return Unauthenticated.for_token("the token has expired; get a new one")
    defect = next((text for kind, text in _DEFECTS if isinstance(error, kind)), _OTHER_DEFECT)
    return Unauthenticated.for_token(f"the token is not valid: {defect}")


def _read_unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the header and the claims of a token before its verification, to choose the key for it.

    PyJWT would take several times as long to read them.

    Raises:
        jwt.DecodeError: the token does not have three parts, its header or its claims are not a JSON object, or its
            signature is not in the form of base64url that RFC 7515 prescribes.
    """
    try:
        header, claims, signature = token.split(".")
        # Python's decoder ignores padding and unused bits. Otherwise one token could be written in many ways, and each
        # of them would take a place in the cache.
        if base64.urlsafe_b64encode(base64.urlsafe_b64decode(signature + "==")).rstrip(b"=") != signature.encode():
            raise jwt.DecodeError
        return _read_header(header), _read_part(claims)
    except (ValueError, RecursionError):
        raise jwt.DecodeError from None


def _read_part(part: str) -> Mapping[str, Any]:
    values = json.loads(base64.urlsafe_b64decode(part + "=="))
    if not isinstance(values, dict):
        raise jwt.DecodeError
    return values


_read_header = lru_cache(_CACHED_HEADERS)(_read_part)
"""All tokens that one key signs have the same header."""


def _is_subject(claim: Any) -> bool:
    """Return whether a claim is valid as the id of a caller, which is stored, logged and compared."""
    return isinstance(claim, str) and 0 < len(claim) <= _MAX_SUBJECT_LENGTH and claim.isprintable()


def _get_claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim with this name or at this path; None if the token has none."""
    if path in claims:  # a name may contain dots itself, such as a URL
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _parse_roles(claim: Any) -> frozenset[Role]:
    """Return the known roles in a claim, without regard to case; an empty set if the claim is not a list."""
    names = {name.lower() for name in claim if isinstance(name, str)} if isinstance(claim, list) else ()
    return frozenset(_ROLES[name] for name in names if name in _ROLES)
