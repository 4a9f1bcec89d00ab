"""Passwords as Argon2id hashes, made on threads of their own."""

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
class Hardness:
    """What a hash costs whoever makes it, and whoever guesses. The defaults are the second option that RFC 9106
    (section 4) recommends: 3 passes over 64 MiB in 4 lanes, with a salt of 128 bits and a tag of 256.
    """

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4


class Passwords:
    """Hashes passwords and compares them with hashes. A hash takes a tenth of a second and 64 MiB, so few are made at
    once and few wait; while they are made, the event loop goes on.
    """

    def __init__(self, hardness: Hardness, *, threads: int, waiting: int) -> None:
        """Args:
        hardness: of new hashes.
        threads: how many are made at once.
        waiting: how many more may wait for that.
        """
        self._hardness = hardness
        self._hasher = PasswordHasher(
            hardness.passes, hardness.memory_kib, hardness.lanes, hash_len=_TAG_BYTES, salt_len=_SALT_BYTES
        )
        self._threads = ThreadPoolExecutor(threads, "password")
        self._room = threads + waiting
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place among those who hash or wait for it; `hash` and `verify` are for whoever has one.

        Raises:
            ResourceExhausted: there is none.
        """
        if self._room == 0:
            metrics.SHED.inc()
            raise ResourceExhausted
        self._room -= 1
        try:
            with metrics.HASHING.track_inprogress():
                yield
        finally:
            self._room += 1

    async def hash(self, password: Secret) -> str:
        """A new hash of the password, with a salt of its own."""
        return await self._run(lambda: self._hasher.hash(password.text))

    async def verify(self, hash_: str | None, password: Secret) -> bool:
        """Whether the hash is of the password. That there is none takes as long as that it is of another one."""

        def verify() -> bool:
            try:
                self._hasher.verify(hash_ or self._nobodys, password.text)
            except VerifyMismatchError:
                return False
            return hash_ is not None

        return await self._run(verify)

    def is_weak(self, hash_: str) -> bool:
        """Whether a new hash of the same password would be harder."""
        made, wanted = extract_parameters(hash_), self._hardness
        return made.memory_cost < wanted.memory_kib or made.time_cost < wanted.passes

    async def _run(self, work: Callable[[], Value]) -> Value:
        def timed() -> Value:
            with metrics.HASH_SECONDS.time():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, timed)
