import asyncio
import random
from collections import Counter

import pytest

from subgraphs.bank.client import Receipt
from tests.integration.bank.harness import RunningBank, assert_ledger_invariants, clearing_account, rub
from wallet.errors import InsufficientFunds, InternalError, Unavailable


class TestConcurrentTransfers:
    async def test_concurrent_transfers_do_not_overdraw_an_account(self, own_bank: RunningBank) -> None:
        sender = await own_bank.open("alice", "100.00")
        recipients = [await own_bank.open("bob", "0") for _ in range(4)]
        alice = own_bank.user("alice")
        results = await asyncio.gather(
            *(alice(own_bank.client.transfer(sender, recipients[n % 4], rub("0.75"), str(n))) for n in range(200)),
            return_exceptions=True,
        )
        assert Counter(type(result) for result in results) == {Receipt: 133, InsufficientFunds: 67}
        assert await own_bank.balance(sender) == rub("0.25").amount
        versions = sorted(result.posting.version for result in results if isinstance(result, Receipt))
        assert versions == list(range(1, 134))
        await assert_ledger_invariants(own_bank.sql)

    async def test_opposite_concurrent_transfers_do_not_deadlock(self, own_bank: RunningBank) -> None:
        a, b = await own_bank.open("alice"), await own_bank.open("alice")
        alice = own_bank.user("alice")
        pairs = [(a, b), (b, a)]
        receipts = await asyncio.gather(
            *(alice(own_bank.client.transfer(*pairs[n % 2], rub("1"), str(n))) for n in range(100))
        )
        assert len({receipt.transfer.id for receipt in receipts}) == 100
        assert await own_bank.balance(a) == await own_bank.balance(b) == 1000
        await assert_ledger_invariants(own_bank.sql)

    async def test_concurrent_transfers_around_a_ring_keep_balances(self, own_bank: RunningBank) -> None:
        ring = [await own_bank.open("alice", "10.00") for _ in range(10)]
        alice = own_bank.user("alice")
        await asyncio.gather(
            *(alice(own_bank.client.transfer(ring[n % 10], ring[(n + 1) % 10], rub("1"), str(n))) for n in range(100))
        )
        assert {await own_bank.balance(account) for account in ring} == {rub("10").amount}
        await assert_ledger_invariants(own_bank.sql)

    async def test_random_transfers_and_deposits_keep_the_invariants(self, own_bank: RunningBank) -> None:
        accounts = [await own_bank.open("alice", "5.00") for _ in range(6)]
        alice, card, rng = own_bank.user("alice"), own_bank.service("card"), random.Random(7)

        async def one(n: int) -> None:
            sender, recipient = rng.sample(accounts, 2)
            amount, key = rub(str(rng.randint(1, 4))), str(n % 150)  # one call in four repeats a key
            if rng.random() < 0.2:
                await card(own_bank.client.deposit(recipient, amount, key, {}))
            else:
                await alice(own_bank.client.transfer(sender, recipient, amount, key))

        await asyncio.gather(*(one(n) for n in range(200)), return_exceptions=True)
        await assert_ledger_invariants(own_bank.sql)
        deposited = await own_bank.sql.fetchval("SELECT coalesce(sum(amount), 0) FROM transfers WHERE kind = 'DEPOSIT'")
        assert await own_bank.balance(clearing_account()) == -deposited
        assert (await own_bank.count_rows())["transfers"] > 50


class TestConflicts:
    @pytest.mark.parametrize("code", ["serialization_failure", "deadlock_detected"])
    async def test_transient_conflicts_are_retried_transparently(self, own_bank: RunningBank, code: str) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        await _inject_conflicts(own_bank, code, times=2)
        receipt = await own_bank.user("alice")(own_bank.client.transfer(sender, recipient, rub("1"), "k"))
        assert receipt.posting.version == 1
        await assert_ledger_invariants(own_bank.sql)

    async def test_permanent_conflicts_write_nothing_and_allow_a_retry(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        await _inject_conflicts(own_bank, "deadlock_detected", times=1_000_000)
        alice = own_bank.user("alice")
        with pytest.raises(Unavailable):
            await alice(own_bank.client.transfer(sender, recipient, rub("1"), "k"))
        assert set((await own_bank.count_rows()).values()) == {0}
        await own_bank.sql.execute("DROP TRIGGER conflict ON outbox")
        assert (await alice(own_bank.client.transfer(sender, recipient, rub("1"), "k"))).posting.version == 1

    async def test_unexpected_unique_violation_is_an_internal_error(self, own_bank: RunningBank) -> None:
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        await own_bank.sql.execute("INSERT INTO entries VALUES ($1, 1, uuidv7(), 1, 1)", sender)
        with pytest.raises(InternalError):
            await own_bank.user("alice")(own_bank.client.transfer(sender, recipient, rub("1"), "k"))
        assert (await own_bank.count_rows())["transfers"] == 0
        assert await own_bank.balance(sender) == 1000


async def _inject_conflicts(bank: RunningBank, code: str, times: int) -> None:
    """Make the next `times` transactions fail with a conflict. A sequence counts them, because it never rolls back."""
    await bank.sql.execute(f"""
        CREATE SEQUENCE conflicts;
        CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('conflicts') <= {times} THEN RAISE EXCEPTION 'again' USING ERRCODE = '{code}'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER conflict AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION conflict();
    """)
