"""Private keys that sign access tokens, in a folder of PEM files.

A new key is published at once. A minute later all verifiers have the key, and it begins to sign. It stops when a newer
key begins to sign. After that it stays published, so that the tokens that it has signed can be verified.

`subgraphs.identity.service.keys` adds and removes keys.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kit.auth.jwk import public_jwk
from subgraphs.identity.service import metrics

log = structlog.get_logger(__name__)

READ_INTERVAL_SECONDS: Final = 5.0
"""Interval at which a process reads the folder."""

MAX_AGE_SECONDS: Final = 30
"""`max-age` of the published key set in HTTP caches."""

ACTIVATION_SECONDS: Final = 60.0
"""Time from the publication of a key to its first signature; all verifiers reload the key set within this time."""


class NoSigningKeyError(Exception):
    """The folder has no key. The message says how to create one."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Key in the folder. `created_at` is the Unix time of the file's last change."""

    file: Path
    created_at: float
    private: Ed25519PrivateKey

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as a JSON Web Key."""
        return public_jwk(self.private.public_key())


class SigningKeys:
    """Keys that the last read of the folder found."""

    def __init__(self, keys: Sequence[SigningKey], clock: Callable[[], float] = time.time) -> None:
        """Args:
        keys: at least one key, oldest first.
        clock: returns the Unix time.
        """
        self._keys = keys
        self._clock = clock

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read the keys of a folder.

        Raises:
            NoSigningKeyError: there is no key.
        """
        if not (keys := read_keys(folder)):
            raise NoSigningKeyError(
                f"there is no key in {folder}: create one with "
                f"python -m subgraphs.identity.service.keys rotate --folder {folder} --keep 600"
            )
        metrics.KEYS.set(len(keys))
        return cls(keys)

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs now."""
        return choose_signing_key(self._keys, self._clock()).private

    @property
    def jwks(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """The public keys as a JSON Web Key Set (RFC 7517)."""
        return {"keys": [key.jwk for key in self._keys]}

    async def refresh_forever(self, folder: Path) -> None:
        """Read the folder every five seconds. While the folder has no key, the previous keys stay in use."""
        while True:
            await asyncio.sleep(READ_INTERVAL_SECONDS)
            if keys := await asyncio.to_thread(read_keys, folder):
                self._keys = keys
                metrics.KEYS.set(len(keys))
            else:
                log.error("no signing keys in the folder, previous keys stay in use", folder=str(folder))


def read_keys(folder: Path) -> list[SigningKey]:
    """Return the keys in a folder, oldest first. Files that are no Ed25519 key (PEM, PKCS 8) are logged and skipped."""
    keys = []
    for file in folder.glob("*.pem"):
        try:
            created_at, private = file.stat().st_mtime, load_pem_private_key(file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            log.warning("signing key cannot be read", file=str(file), error=type(error).__name__)
            continue
        if isinstance(private, Ed25519PrivateKey):
            keys.append(SigningKey(file, created_at, private))
        else:
            log.warning("signing key is no Ed25519 key", file=str(file))
    return sorted(keys, key=lambda key: (key.created_at, key.file.name))


def choose_signing_key(keys: Sequence[SigningKey], now: float) -> SigningKey:
    """Return the newest activated key; the oldest key if none is activated. `keys` are oldest first."""
    activated = [key for key in keys if key.created_at + ACTIVATION_SECONDS <= now]
    return activated[-1] if activated else keys[0]


def find_obsolete_keys(keys: Sequence[SigningKey], now: float, *, keep_seconds: float) -> list[SigningKey]:
    """Return the keys that newer keys have replaced and whose tokens have all expired.

    Args:
        keys: all keys, oldest first.
        now: Unix time.
        keep_seconds: lifetime of an access token.
    """
    # A key of this age has replaced its predecessors, and all tokens that the predecessors signed have expired.
    seconds = ACTIVATION_SECONDS + READ_INTERVAL_SECONDS + keep_seconds
    replacing = [index for index, key in enumerate(keys) if key.created_at + seconds <= now]
    return list(keys[: replacing[-1]]) if replacing else []
