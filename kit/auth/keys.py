"""Key sets of issuers, reloaded while the process runs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Self

import httpx
import jwt
import structlog

from kit.auth.jwk import ALGORITHM, InvalidKeySetError, PublicKey, parse_key_set
from kit.runtime import process
from kit.runtime.settings import Algorithm
from wallet.errors import Unavailable

log = structlog.get_logger(__name__)

_FILE_INTERVAL_SECONDS: Final = 2.0
_URL_INTERVAL_SECONDS: Final = 60.0
_FIRST_RETRY_SECONDS: Final = 0.25
"""Interval of reads until the first read succeeds."""
_MISS_INTERVAL_SECONDS: Final = 2.0
"""Minimum time between two reads that unknown `kid`s cause. It limits the reads that forged tokens can cause."""
_CALLER_TIMEOUT_SECONDS: Final = 2.0
"""Longest time that a call waits for a read of the key set."""
_URL_TIMEOUT_SECONDS: Final = 2.0


class KeySet:
    """Public keys that one issuer publishes now.

    If the key set cannot be read or has no key for the algorithm, this is logged and the previous keys stay in use.
    """

    def __init__(
        self, read: Callable[[], Awaitable[bytes]], source: str, algorithm: Algorithm, interval_seconds: float
    ) -> None:
        """Args:
        read: returns the key set as a JSON document (RFC 7517).
        source: file or URL, for the log.
        algorithm: signature algorithm of the issuer; keys for other algorithms are ignored.
        interval_seconds: time between two reads.
        """
        self._read = read
        self._source = source
        self._algorithm = algorithm
        self._interval = interval_seconds
        self._keys: dict[str, PublicKey] | None = None
        self._text: bytes | None = None
        self._failure = ""
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -_MISS_INTERVAL_SECONDS

    @classmethod
    def from_text(cls, text: str | bytes, algorithm: Algorithm = ALGORITHM) -> Self:
        """Return a key set that never changes.

        Raises:
            InvalidKeySetError: the text is not a key set, or has no key for the algorithm.
        """

        async def read() -> bytes:
            return content

        content = text if isinstance(text, bytes) else text.encode()
        keys = cls(read, "", algorithm, _URL_INTERVAL_SECONDS)
        keys._replace_keys(content)
        return keys

    @classmethod
    @asynccontextmanager
    async def from_file(cls, file: Path, algorithm: Algorithm = ALGORITHM) -> AsyncIterator[Self]:
        """Open the key set of a file, which is read every two seconds.

        Raises:
            InvalidKeySetError, OSError: the first read fails.
        """

        async def read() -> bytes:
            return await asyncio.to_thread(file.read_bytes)

        keys = cls(read, str(file), algorithm, _FILE_INTERVAL_SECONDS)
        keys._replace_keys(await read())
        async with keys._refreshing_in_background():
            yield keys

    @classmethod
    @asynccontextmanager
    async def from_url(cls, url: str, algorithm: Algorithm = ALGORITHM) -> AsyncIterator[Self]:
        """Open the key set of a URL, which is read every minute. The URL need not be available yet."""

        async def read() -> bytes:
            async with asyncio.timeout(_URL_TIMEOUT_SECONDS):  # httpx's own time-out starts again with each chunk
                return (await http.get(url)).raise_for_status().content

        async with httpx.AsyncClient(timeout=_URL_TIMEOUT_SECONDS, trust_env=False) as http:
            keys = cls(read, url, algorithm, _URL_INTERVAL_SECONDS)
            async with keys._refreshing_in_background():
                yield keys

    @property
    def jwks(self) -> dict[str, list[Mapping[str, str]]] | None:
        """The key set as a JSON document; None until the first read succeeds."""
        return None if self._keys is None else {"keys": [key.jwk for key in self._keys.values()]}

    def is_current(self, key: PublicKey) -> bool:
        """Return whether the issuer still publishes the key."""
        return self._keys is not None and self._keys.get(key.jwk["kid"]) is key

    async def check_loaded(self) -> None:
        """Check that the key set has been read.

        Raises:
            Unavailable: no read has succeeded yet.
        """
        if self._keys is None:
            raise Unavailable("the issuer's keys")

    def find_key(self, kid: object) -> PublicKey | None:
        """Return the key that `get_key` would return without a read of the key set; None if a read is necessary."""
        if self._keys is None:
            return None
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid) if isinstance(kid, str) else None

    async def get_key(self, kid: object) -> PublicKey:
        """Return the key with this `kid`. An unknown `kid` causes a read, at most every two seconds.

        Args:
            kid: `kid` of the token; None if the token has none. Such a token is accepted only if the issuer publishes
                exactly one key.

        Raises:
            Unavailable: no read has succeeded yet.
            jwt.InvalidKeyError: no published key has this `kid`, or `kid` is None and several keys are published.
        """
        if (key := self.find_key(kid)) is None:
            await self._ensure_refreshed()
            key = self.find_key(kid)
        await self.check_loaded()
        if key is None:
            raise jwt.InvalidKeyError
        return key

    async def refresh(self) -> None:
        """Read the key set now.

        A failure is not raised. It is logged, unless the previous read failed with the same error.
        """
        self._refreshed_at = time.monotonic()
        try:
            text = await self._read()
            if text != self._text:
                self._replace_keys(text)
        except (InvalidKeySetError, OSError, httpx.HTTPError) as error:
            failure = f"{type(error).__name__}: {error}"
            if failure != self._failure:
                log.warning("issuer's keys cannot be read", source=self._source, error=failure)
            self._failure = failure
        else:
            self._failure = ""

    async def _ensure_refreshed(self) -> None:
        """Read the key set unless the last read is recent. Concurrent callers share one read, and wait at most 2 s."""
        if self._refreshing is None:
            if time.monotonic() - self._refreshed_at < self._min_interval_seconds:
                return
            self._refreshing = asyncio.create_task(self.refresh(), name="refresh of keys")
            self._refreshing.add_done_callback(self._on_refreshed)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CALLER_TIMEOUT_SECONDS):
                await asyncio.shield(self._refreshing)

    @property
    def _min_interval_seconds(self) -> float:
        return _MISS_INTERVAL_SECONDS if self._keys is not None else _FIRST_RETRY_SECONDS

    def _on_refreshed(self, _: "asyncio.Task[None]") -> None:
        self._refreshing = None

    @asynccontextmanager
    async def _refreshing_in_background(self) -> AsyncIterator[None]:
        async with process.background_task(self._refresh_forever(), f"keys of {self._source}"):
            try:
                yield
            finally:
                if self._refreshing is not None:
                    self._refreshing.cancel()

    async def _refresh_forever(self) -> None:
        while True:
            await self._ensure_refreshed()
            await asyncio.sleep(self._interval if self._keys is not None else _FIRST_RETRY_SECONDS)

    def _replace_keys(self, text: bytes) -> None:
        """Use the keys of the text. An unchanged key stays the same object, so tokens verified with it stay cached.

        Raises:
            InvalidKeySetError: there is no usable key; the previous keys stay in use.
        """
        keys = parse_key_set(text, self._algorithm)
        if not keys:
            raise InvalidKeySetError(f"no key for {self._algorithm}")
        previous = self._keys or {}
        for kid, key in keys.items():
            if kid in previous and previous[kid].jwk == key.jwk:
                keys[kid] = previous[kid]
        self._keys, self._text = keys, text
