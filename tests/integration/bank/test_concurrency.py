import asyncio
import random
from collections import Counter

from subgraphs.bank.client import Receipt
from tests.integration.bank.running import RunningBank, clearing, prove, rub
from wallet.errors import InsufficientFunds


class TestConcurrentTransfers:
    async def test_from_one_account_never_overdraw_it(self, own_bank: RunningBank) -> None:
        sender = await own_bank.open("alice", "100.00")
        recipients = [await own_bank.open("bob", "0") for _ in range(4)]
        alice = own_bank.user("alice")
        answers = await asyncio.gather(
            *(alice(own_bank.client.transfer(sender, recipients[n % 4], rub("0.75"), str(n))) for n in range(200)),
            return_exceptions=True,
        )
        assert Counter(type(answer) for answer in answers) == {Receipt: 133, InsufficientFunds: 67}
        assert await own_bank.balance(sender) == rub("0.25").amount
        versions = sorted(answer.posting.version for answer in answers if isinstance(answer, Receipt))
        assert versions == list(range(1, 134))
        await prove(own_bank.sql)

    async def test_there_and_back_at_once_do_not_lock_each_other_out(self, own_bank: RunningBank) -> None:
        a, b = await own_bank.open("alice"), await own_bank.open("alice")
        alice = own_bank.user("alice")
        pairs = [(a, b), (b, a)]
        receipts = await asyncio.gather(
            *(alice(own_bank.client.transfer(*pairs[n % 2], rub("1"), str(n))) for n in range(100))
        )
        assert len({receipt.transfer.id for receipt in receipts}) == 100
        assert await own_bank.balance(a) == await own_bank.balance(b) == 1000
        await prove(own_bank.sql)

    async def test_round_a_ring_end_where_they_began(self, own_bank: RunningBank) -> None:
        ring = [await own_bank.open("alice", "10.00") for _ in range(10)]
        alice = own_bank.user("alice")
        await asyncio.gather(
            *(alice(own_bank.client.transfer(ring[n % 10], ring[(n + 1) % 10], rub("1"), str(n))) for n in range(100))
        )
        assert {await own_bank.balance(account) for account in ring} == {rub("10").amount}
        await prove(own_bank.sql)

    async def test_and_deposits_at_random_keep_every_law(self, own_bank: RunningBank) -> None:
        accounts = [await own_bank.open("alice", "5.00") for _ in range(6)]
        alice, card, chance = own_bank.user("alice"), own_bank.service("card"), random.Random(7)

        async def one(n: int) -> None:
            sender, recipient = chance.sample(accounts, 2)
            amount, key = rub(str(chance.randint(1, 4))), str(n % 150)  # every fourth key is used again
            if chance.random() < 0.2:
                await card(own_bank.client.deposit(recipient, amount, key, {}))
            else:
                await alice(own_bank.client.transfer(sender, recipient, amount, key))

        await asyncio.gather(*(one(n) for n in range(200)), return_exceptions=True)
        await prove(own_bank.sql)
        deposited = await own_bank.sql.fetchval("SELECT coalesce(sum(amount), 0) FROM transfers WHERE kind = 'DEPOSIT'")
        assert await own_bank.balance(clearing()) == -deposited
        assert (await own_bank.written())["transfers"] > 50
