"""Argon2id hashes of passwords, computed in a thread pool."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError

from subgraphs.identity.service import metrics
from wallet.errors import ResourceExhausted
from wallet.inputs import Secret

Value = TypeVar("Value")

_SALT_BYTES: Final = 16
_TAG_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """Cost parameters of a hash.

    The defaults are the second recommendation of RFC 9106 (section 4): 3 passes over 64 MiB in 4 lanes, with a salt of
    128 bits and a tag of 256 bits.
    """

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4


class Passwords:
    """Hashes and verifies passwords.

    A hash takes a tenth of a second and 64 MiB, so the number of concurrent and waiting hashes is limited. The event
    loop is not blocked.
    """

    def __init__(self, parameters: Argon2Parameters, *, threads: int, waiting: int) -> None:
        """Args:
        parameters: cost of new hashes.
        threads: maximum number of concurrent hashes.
        waiting: maximum number of further hashes that wait for a thread.
        """
        self._parameters = parameters
        self._hasher = PasswordHasher(
            parameters.passes, parameters.memory_kib, parameters.lanes, hash_len=_TAG_BYTES, salt_len=_SALT_BYTES
        )
        self._threads = ThreadPoolExecutor(threads, "password")
        self._free_slots = threads + waiting
        self._dummy_hash = self._hasher.hash(secrets.token_urlsafe())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Reserve a place in the queue of the threads during the block. Call `hash` and `verify` in such a block only.

        Raises:
            ResourceExhausted: all places are taken.
        """
        if self._free_slots == 0:
            metrics.HASHES_REJECTED.inc()
            raise ResourceExhausted
        self._free_slots -= 1
        try:
            with metrics.HASHING.track_inprogress():
                yield
        finally:
            self._free_slots += 1

    async def hash(self, password: Secret) -> str:
        """Return a new hash of the password, with a random salt."""
        return await self._run(lambda: self._hasher.hash(password.text))

    async def verify(self, hash_: str | None, password: Secret) -> bool:
        """Verify the password. Takes the same time whether or not the user exists.

        Args:
            hash_: stored hash; None if the user does not exist.
            password: password of the caller.
        """

        def verify() -> bool:
            try:
                self._hasher.verify(hash_ or self._dummy_hash, password.text)
            except VerifyMismatchError:
                return False
            return hash_ is not None

        return await self._run(verify)

    def is_weak(self, hash_: str) -> bool:
        """Return whether the hash has a lower cost than new hashes: less memory or fewer passes."""
        used, required = extract_parameters(hash_), self._parameters
        return used.memory_cost < required.memory_kib or used.time_cost < required.passes

    async def _run(self, work: Callable[[], Value]) -> Value:
        def timed() -> Value:
            with metrics.HASH_SECONDS.time():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, timed)
