"""Two replicas of the bank service that use one ledger database at the same time."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from subgraphs.bank.client import Receipt, TransferRequest
from tests.conftest import Keys
from tests.integration.bank.harness import RunningBank, assert_ledger_invariants, rub, run_bank
from wallet.errors import IdempotencyConflict, InsufficientFunds

Replicas = tuple[RunningBank, RunningBank]


@pytest.fixture
async def replicas(ledger_url: str, keys: Keys, tmp_path: Path) -> AsyncIterator[Replicas]:
    async with run_bank(keys, tmp_path, ledger_url) as one, run_bank(keys, tmp_path, ledger_url) as two:
        yield one, two


async def count_deadlocks(bank: RunningBank) -> int:
    await bank.sql.execute("SELECT pg_stat_force_next_flush()")
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    count: int = await bank.sql.fetchval(query)
    return count


class TestReplicas:
    async def test_two_banks_do_not_overdraw_a_shared_account(self, replicas: Replicas) -> None:
        one, _ = replicas
        shared, recipient = await one.open("alice", "1000"), await one.open("bob", "0")
        alice = one.user("alice")

        async def bulk(bank: RunningBank, run: int) -> list[object]:
            requests = [TransferRequest(shared, recipient, rub("1"), f"{run} {n}") for n in range(300)]
            return [type(result) for result in await alice(bank.client.batch_transfer(requests))]

        results = await asyncio.gather(*(bulk(replicas[run % 2], run) for run in range(6)))
        assert sum((Counter(each) for each in results), Counter()) == {Receipt: 1000, InsufficientFunds: 800}
        assert await one.balance(shared) == 0
        assert await count_deadlocks(one) == 0
        await assert_ledger_invariants(one.sql)

    async def test_two_banks_return_the_same_results_for_the_same_keys(self, replicas: Replicas) -> None:
        one, two = replicas
        sender, recipient = await one.open("alice"), await one.open("bob")
        alice = one.user("alice")
        requests = [TransferRequest(sender, recipient, rub("1"), str(n)) for n in range(200)]
        first, second = await asyncio.gather(*(alice(bank.client.batch_transfer(requests)) for bank in (one, two)))
        assert first == second
        assert await one.balance(sender) == 800

    async def test_two_banks_with_common_keys_do_not_deadlock(self, replicas: Replicas) -> None:
        one, two = replicas
        alice, rng = one.user("alice"), random.Random(11)
        sides = {bank: (await one.open("alice"), await one.open("alice")) for bank in replicas}

        # Each insert of a key takes a millisecond, so that the transactions of the two banks overlap.
        await one.sql.execute("""
            CREATE FUNCTION slow_insert() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END $$;
            CREATE TRIGGER slow_insert BEFORE INSERT ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION slow_insert();
        """)

        async def use(bank: RunningBank, keys: list[str]) -> dict[str, object]:
            requests = [TransferRequest(*sides[bank], rub("1"), key) for key in rng.sample(keys, len(keys))]
            results = await alice(bank.client.batch_transfer(requests))
            return {request.idempotency_key: type(result) for request, result in zip(requests, results, strict=True)}

        for turn in range(5):
            keys = [f"{turn} {n}" for n in range(50)]
            first, second = await asyncio.gather(use(one, keys), use(two, keys))
            assert all({first[key], second[key]} == {Receipt, IdempotencyConflict} for key in keys)
        assert await count_deadlocks(one) == 0
        assert (await one.count_rows())["transfers"] == 5 * 50
        await assert_ledger_invariants(one.sql)
