"""Password hashes and the slots that limit them."""

import asyncio
from collections.abc import Iterator

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type

from subgraphs.identity.service.adapters.passwords import Argon2Parameters, Passwords
from wallet.errors import ResourceExhausted
from wallet.inputs import Secret

CHEAP = Argon2Parameters(memory_kib=32, passes=1)
PASSWORD, OTHER = Secret("correct horse battery"), Secret("staple battery horse")


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    with Passwords(CHEAP, threads=2, waiting=1) as passwords:
        yield passwords


class TestHashes:
    def test_default_parameters_are_those_of_rfc_9106(self) -> None:
        parameters = Argon2Parameters()
        assert (parameters.memory_kib, parameters.passes, parameters.lanes) == (2**16, 3, 4)

    async def test_hash_is_argon2id_with_a_random_salt(self, passwords: Passwords) -> None:
        hashes = [await passwords.hash(PASSWORD) for _ in range(2)]
        parameters = extract_parameters(hashes[0])
        assert (parameters.type, parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (
            Type.ID,
            32,
            1,
            4,
        )
        assert (parameters.salt_len, parameters.hash_len) == (16, 32)
        assert hashes[0] != hashes[1]

    async def test_hash_verifies_one_password_only(self, passwords: Passwords) -> None:
        hash_ = await passwords.hash(PASSWORD)
        assert await passwords.verify(hash_, PASSWORD)
        assert not await passwords.verify(hash_, OTHER)

    async def test_missing_user_verifies_no_password(self, passwords: Passwords) -> None:
        assert not await passwords.verify(None, PASSWORD)

    async def test_hash_with_lower_parameters_is_weak(self, passwords: Passwords) -> None:
        hash_ = await passwords.hash(PASSWORD)
        assert not passwords.is_weak(hash_)
        for parameters, weak in (
            (Argon2Parameters(64, 1), True),
            (Argon2Parameters(32, 2), True),
            (Argon2Parameters(32, 1), False),
        ):
            with Passwords(parameters, threads=1, waiting=0) as others:
                assert others.is_weak(hash_) == weak


class TestSlots:
    async def test_number_of_slots_is_threads_plus_waiting(self, passwords: Passwords) -> None:
        with passwords.slot(), passwords.slot(), passwords.slot(), pytest.raises(ResourceExhausted):
            passwords.slot().__enter__()
        with passwords.slot():
            pass

    async def test_failed_caller_frees_its_slot(self, passwords: Passwords) -> None:
        for _ in range(9):
            with pytest.raises(KeyError), passwords.slot():
                raise KeyError

    async def test_cancelled_caller_frees_its_slot(self, passwords: Passwords) -> None:
        async def wait() -> None:
            with passwords.slot():
                await asyncio.Event().wait()

        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with passwords.slot(), passwords.slot(), passwords.slot():
            pass
