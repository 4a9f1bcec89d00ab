"""Issuers' public keys, followed while they change."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from kit.runtime import process
from kit.runtime.settings import Algorithm
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

ALGORITHM: Final[Algorithm] = "EdDSA"
"""What our own tokens are signed with. Ed25519: a verification costs about 100 µs."""

_FITTING: Final[Mapping[Algorithm, Mapping[str, str]]] = {
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "RS256": {"kty": "RSA"},
}
_PUBLIC: Final = ("kty", "crv", "x", "y", "n", "e")
"""The members of a JWK that make the key (RFC 7518, RFC 8037), less all that would be private."""
_RSA_BITS: Final = 2_048

_FILE_SECONDS: Final = 2.0
_URL_SECONDS: Final = 60.0
_FIRST_SECONDS: Final = 0.25
"""How long until a set that has never been read is tried again."""
_AGAIN_SECONDS: Final = 2.0
"""How long a set is not read again for a key that it lacks: strangers' tokens name keys that there are not."""
_WAIT_SECONDS: Final = 2.0
"""How long a call waits for the set that it needs."""
_URL_TIMEOUT_SECONDS: Final = 2.0


class InvalidKeySetError(Exception):
    """What was read is no set of keys that could be used. The message is for whoever runs the system."""


@dataclass(frozen=True, slots=True, eq=False)
class PublicKey:
    """A key as it was published: without anything private, `kid` and algorithm included."""

    jwk: Mapping[str, str]
    public: jwt.PyJWK


class KeySet:
    """The public keys of one issuer, as they are published now.

    A set that cannot be read, or that has no key for the algorithm, is told in the log and changes nothing. What is for
    another algorithm in a set that can be read is not looked at.
    """

    def __init__(
        self, read: Callable[[], Awaitable[bytes]], source: str, algorithm: Algorithm, period_seconds: float
    ) -> None:
        """Args:
        read: the set as a JSON document (RFC 7517).
        source: where it is read, for the log.
        algorithm: what the issuer signs with.
        period_seconds: how often it is read.
        """
        self._read = read
        self._source = source
        self._algorithm = algorithm
        self._period = period_seconds
        self._keys: dict[str, PublicKey] | None = None
        self._text: bytes | None = None
        self._failure = ""
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -_AGAIN_SECONDS

    @classmethod
    def from_text(cls, text: str | bytes, algorithm: Algorithm = ALGORITHM) -> Self:
        """A set that stays as it is.

        Raises:
            NoKeySetError: the text is none.
        """

        async def read() -> bytes:
            return content

        content = text if isinstance(text, bytes) else text.encode()
        keys = cls(read, "", algorithm, _URL_SECONDS)
        keys._replace_keys(content)
        return keys

    @classmethod
    @asynccontextmanager
    async def from_file(cls, file: Path, algorithm: Algorithm = ALGORITHM) -> AsyncIterator[Self]:
        """The set in a file, read again some seconds after it changes.

        Raises:
            NoKeySetError, OSError: there is none at first.
        """

        async def read() -> bytes:
            return await asyncio.to_thread(file.read_bytes)

        keys = cls(read, str(file), algorithm, _FILE_SECONDS)
        keys._replace_keys(await read())
        async with keys._following():
            yield keys

    @classmethod
    @asynccontextmanager
    async def from_url(cls, url: str, algorithm: Algorithm = ALGORITHM) -> AsyncIterator[Self]:
        """The set at an address, asked for every minute. It need not answer at first."""

        async def read() -> bytes:
            async with asyncio.timeout(_URL_TIMEOUT_SECONDS):  # httpx's own are of each read, however many there are
                return (await http.get(url)).raise_for_status().content

        async with httpx.AsyncClient(timeout=_URL_TIMEOUT_SECONDS, trust_env=False) as http:
            keys = cls(read, url, algorithm, _URL_SECONDS)
            async with keys._following():
                yield keys

    @property
    def jwks(self) -> dict[str, list[Mapping[str, str]]] | None:
        """The set for others to read; None while it has never been read."""
        return None if self._keys is None else {"keys": [key.jwk for key in self._keys.values()]}

    def is_current(self, key: PublicKey) -> bool:
        """Whether the key is among those of now."""
        return self._keys is not None and self._keys.get(key.jwk["kid"]) is key

    async def check_loaded(self) -> None:
        """Returns when the set has been read.

        Raises:
            Unavailable: it never has.
        """
        if self._keys is None:
            raise Unavailable("the issuer's keys")

    async def get_key(self, kid: object) -> PublicKey:
        """The key of this name. For one that it does not have, the set is read again, though not at once again.

        Raises:
            Unavailable: the set has never been read.
            jwt.InvalidKeyError: there is no such key.
        """
        if (key := self._lookup(kid)) is None:
            await self._ensure_refreshed()
            key = self._lookup(kid)
        await self.check_loaded()
        if key is None:
            raise jwt.InvalidKeyError
        return key

    async def refresh(self) -> None:
        """Reads the set now; never fails."""
        self._refreshed_at = time.monotonic()
        try:
            text = await self._read()
            if text != self._text:
                self._replace_keys(text)
        except (InvalidKeySetError, OSError, httpx.HTTPError) as error:
            failure = f"{type(error).__name__}: {error}"
            if failure != self._failure:
                log.warning("an issuer's keys cannot be read", source=self._source, error=failure)
            self._failure = failure
        else:
            self._failure = ""

    def _lookup(self, kid: object) -> PublicKey | None:
        return self._keys.get(kid) if self._keys is not None and isinstance(kid, str) else None

    async def _ensure_refreshed(self) -> None:
        """Returns after a reading that has begun lately enough, or when a caller has waited long enough for it."""
        if self._refreshing is None:
            if time.monotonic() - self._refreshed_at < self._again_seconds:
                return
            self._refreshing = asyncio.create_task(self.refresh(), name="refresh of keys")
            self._refreshing.add_done_callback(self._done)
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_SECONDS):
                await asyncio.shield(self._refreshing)

    @property
    def _again_seconds(self) -> float:
        return _AGAIN_SECONDS if self._keys is not None else _FIRST_SECONDS

    def _done(self, _: "asyncio.Task[None]") -> None:
        self._refreshing = None

    @asynccontextmanager
    async def _following(self) -> AsyncIterator[None]:
        async with process.background_task(self._follow(), f"keys of {self._source}"):
            try:
                yield
            finally:
                if self._refreshing is not None:
                    self._refreshing.cancel()

    async def _follow(self) -> None:
        while True:
            await self._ensure_refreshed()
            await asyncio.sleep(self._period if self._keys is not None else _FIRST_SECONDS)

    def _replace_keys(self, text: bytes) -> None:
        """Makes the text's keys those of now. One that was there already stays the same object.

        Raises:
            NoKeySetError: it has none, and nothing has changed.
        """
        found = _keys_of(text, self._algorithm)
        if not found:
            raise InvalidKeySetError(f"there is no key for {self._algorithm}")
        before = self._keys or {}
        for kid, key in found.items():
            if kid in before and before[kid].jwk == key.jwk:
                found[kid] = before[kid]
        self._keys, self._text = found, text


def _keys_of(text: bytes, algorithm: Algorithm) -> dict[str, PublicKey]:
    """The keys of a set that are for the algorithm, by name.

    Raises:
        NoKeySetError: it is no set.
    """
    try:
        published = json.loads(text)["keys"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InvalidKeySetError(f"it is no JSON Web Key Set: {type(error).__name__}") from None
    keys = [_key_of(each, algorithm) for each in published] if isinstance(published, list) else []
    return {key.jwk["kid"]: key for key in keys if key is not None}


def _key_of(jwk: Any, algorithm: Algorithm) -> PublicKey | None:
    """The key, if it is one and for the algorithm."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str):
        return None
    if any(jwk.get(name) != value for name, value in _FITTING[algorithm].items()):
        return None
    if jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    named = {"alg": algorithm, "use": "sig", "kid": jwk["kid"]}
    public = {name: jwk[name] for name in _PUBLIC if name in jwk} | named
    try:
        key = jwt.PyJWK(public)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _RSA_BITS:
        return None
    return PublicKey(public, key)
