"""Batch transfers: one independent result for each request, in the order of the requests; a key moves money once."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.client import Receipt, TransferRequest, Words
from tests.integration.bank.harness import Caller, RunningBank, assert_ledger_invariants, rub
from wallet.errors import (
    AccountNotFound,
    FieldViolation,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    WalletError,
)


def transfer_request(sender: UUID, recipient: UUID, amount: str, key: str) -> TransferRequest:
    return TransferRequest(sender, recipient, rub(amount), key)


class TestBatchTransferMoney:
    async def test_results_of_a_batch_are_in_the_order_of_its_requests(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient, nowhere = await bank.open("alice", "10"), await bank.open("bob", "0"), uuid4()
        run = uuid4()
        results = await alice(
            bank.client.batch_transfer(
                [
                    transfer_request(sender, recipient, "6", f"{run} 1"),
                    transfer_request(sender, recipient, "5", f"{run} 2"),
                    transfer_request(sender, sender, "1", f"{run} 3"),
                    transfer_request(sender, nowhere, "1", f"{run} 4"),
                    transfer_request(recipient, sender, "1", f"{run} 5"),
                    transfer_request(sender, recipient, "4", f"{run} 6"),
                ]
            )
        )
        first, poor, to_itself, missing, anothers, last = results
        assert isinstance(first, Receipt)
        assert (first.posting.version, first.posting.balance_after) == (1, rub("4"))
        assert poor == InsufficientFunds(str(sender), needed="5.00", available="4.00", currency="RUB")
        assert isinstance(to_itself, InvalidInput)
        assert missing == AccountNotFound(str(nowhere))
        assert anothers == AccountNotFound(str(recipient))
        assert isinstance(last, Receipt)
        assert (last.posting.version, last.posting.balance_after) == (2, rub("0"))
        assert await bank.balance(recipient) == 10

    async def test_repeated_batch_returns_the_same_results_and_moves_no_money(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        sender, recipient, run = await bank.open("alice", "10"), await bank.open("bob", "0"), uuid4()
        requests = [transfer_request(sender, recipient, "3", f"{run} {n}") for n in range(5)]
        first = await alice(bank.client.batch_transfer(requests))
        assert [isinstance(result, Receipt) for result in first] == [True, True, True, False, False]
        assert await alice(bank.client.batch_transfer(requests)) == first
        assert await bank.balance(sender) == 1

    async def test_single_and_batch_transfers_share_idempotency_keys(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient, run = await bank.open("alice", "10"), await bank.open("bob", "0"), str(uuid4())
        alone = await alice(bank.client.transfer(sender, recipient, rub("1"), run))
        same, other = await alice(
            bank.client.batch_transfer(
                [transfer_request(sender, recipient, "1", run), transfer_request(sender, recipient, "2", run)]
            )
        )
        assert same == alone
        assert other == IdempotencyConflict(run)

    async def test_duplicates_in_one_batch_move_money_once(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient, run = await bank.open("alice", "10"), await bank.open("bob", "0"), str(uuid4())
        results = await alice(bank.client.batch_transfer([transfer_request(sender, recipient, "1", run)] * 3))
        assert results[0] == results[1] == results[2]
        assert await bank.balance(sender) == 9

    @pytest.mark.slow
    async def test_batch_of_8000_transfers_succeeds(self, own_bank: RunningBank) -> None:
        alice, (one, two) = own_bank.user("alice"), [await own_bank.open("alice", "8000") for _ in range(2)]
        requests = [transfer_request(*((one, two) if n % 2 else (two, one)), "1", str(n)) for n in range(8000)]
        results = await alice(own_bank.client.batch_transfer(requests))
        assert all(isinstance(result, Receipt) for result in results)
        assert (await own_bank.count_rows())["transfers"] == 8000
        assert await own_bank.balance(one) == await own_bank.balance(two) == Decimal(8000)
        await assert_ledger_invariants(own_bank.sql)

    async def test_batch_of_more_than_8000_transfers_is_refused(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        with pytest.raises(InvalidInput) as caught:
            await alice(
                bank.client.batch_transfer([transfer_request(sender, recipient, "1", str(n)) for n in range(8001)])
            )
        assert caught.value.violations == (FieldViolation("transfers", "must have at most 8000 entries"),)

    async def test_empty_batch_has_no_results(self, bank: RunningBank, alice: Caller) -> None:
        assert await alice(bank.client.batch_transfer([])) == []

    async def test_malformed_request_in_a_batch_is_refused_alone(self, bank: RunningBank, alice: Caller) -> None:
        sender, recipient, run = await bank.open("alice"), await bank.open("bob"), uuid4()
        good = bank_pb2.TransferMoneyRequest(
            sender_id=str(sender), recipient_id=str(recipient), idempotency_key=f"{run} good"
        )
        good.amount.units, good.amount.currency_code = 1, "RUB"
        broken = bank_pb2.TransferMoneyRequest(
            sender_id="me", recipient_id=str(recipient), idempotency_key=f"{run} bad"
        )
        request = bank_pb2.BatchTransferMoneyRequest(transfers=[broken, good])
        response = await bank.stub.BatchTransferMoney(request, metadata=alice.metadata)
        refused, completed = response.results
        assert refused.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert completed.value.transfer.sender_id == str(sender)

    async def test_concurrent_single_and_batch_transfers_all_succeed(self, own_bank: RunningBank) -> None:
        alice = own_bank.user("alice")
        accounts = [await own_bank.open("alice", "1000") for _ in range(4)]

        async def single(n: int) -> None:
            sender, recipient = accounts[n % 4], accounts[(n + 1) % 4]
            receipt = await alice(own_bank.client.transfer(sender, recipient, rub("1"), f"single {n}"))
            assert receipt.transfer.sender_id == sender

        async def bulk(run: int) -> None:
            requests = [
                transfer_request(accounts[n % 4], accounts[(n + 2) % 4], "1", f"bulk {run} {n}") for n in range(700)
            ]
            for request, result in zip(requests, await alice(own_bank.client.batch_transfer(requests)), strict=True):
                assert isinstance(result, Receipt)
                assert result.transfer.sender_id == request.sender_id

        await asyncio.gather(*(single(n) for n in range(200)), *(bulk(n) for n in range(3)))
        assert (await own_bank.count_rows())["transfers"] == 200 + 3 * 700
        await assert_ledger_invariants(own_bank.sql)


accounts_of_transfers = st.tuples(st.integers(0, 3), st.integers(0, 3))
"""Indexes of the sender and the recipient: two accounts of alice, one of bob, and one that does not exist."""
transfers = st.builds(
    lambda accounts, amount, key, reference, is_unique: (*accounts, amount, key, reference, is_unique),
    accounts_of_transfers,
    st.integers(0, 12),
    st.integers(0, 9),
    st.sampled_from(("", "R1", "R2")),
    st.booleans(),
)


@given(batch=st.lists(transfers, min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
async def test_batch_has_the_results_of_its_transfers_singly(bank: RunningBank, batch: list[Any]) -> None:
    """Equal accounts get the same transfers, once in a batch and once one after another."""
    alice = bank.user("alice")

    async def run(*, in_a_batch: bool) -> tuple[list[Any], list[Decimal]]:
        owned = [await bank.open(owner, "20") for owner in ("alice", "alice", "bob")]
        ids, prefix = [*owned, UUID(int=7)], uuid4()
        requests = [
            TransferRequest(
                ids[sender],
                ids[recipient],
                rub(str(amount)),
                f"{prefix} {key}",
                words=Words(reference=reference, is_reference_unique=is_unique),
            )
            for sender, recipient, amount, key, reference, is_unique in batch
        ]
        outcomes: list[Receipt | WalletError] = []
        if in_a_batch:
            outcomes = await alice(bank.client.batch_transfer(requests))
        else:
            for each in requests:
                try:
                    sent = (each.sender_id, each.recipient_id, each.amount, each.idempotency_key, "", each.words)
                    outcomes.append(await alice(bank.client.transfer(*sent)))
                except WalletError as error:
                    outcomes.append(error)
        described = [_describe(outcome, ids, str(prefix)) for outcome in outcomes]
        return described, [await bank.balance(id_) for id_ in owned]

    assert await run(in_a_batch=True) == await run(in_a_batch=False)


def _describe(outcome: Receipt | WalletError, ids: list[UUID], prefix: str) -> Any:
    """Return an outcome without the ids that differ between two runs."""
    if isinstance(outcome, Receipt):
        transfer = outcome.transfer
        sides = ids.index(transfer.sender_id), ids.index(transfer.recipient_id)
        posting = outcome.posting
        return sides, transfer.amount, transfer.reference, posting.version, posting.balance_after, outcome.is_replay
    message = str(outcome).replace(prefix, "")
    for number, id_ in enumerate(ids):
        message = message.replace(str(id_), f"account {number}")
    return type(outcome), message, outcome.is_replay
