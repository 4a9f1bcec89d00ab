"""Rejected commands and overload of the bank's group-commit pipeline, as callers see them."""

from uuid import uuid4

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.client import Receipt, TransferRequest
from subgraphs.bank.service.application import group_commit
from tests.integration.bank.harness import Caller, RunningBank, assert_ledger_invariants, rub
from wallet.errors import InternalError, ResourceExhausted

FULL = "999999999999999999.99"
"""Largest balance in roubles and kopecks that the database column can hold."""


class TestRejectedCommands:
    async def test_transfer_with_a_numeric_overflow_does_not_affect_its_batch(self, own_bank: RunningBank) -> None:
        alice = own_bank.user("alice")
        sender, recipient, full = [await own_bank.open("alice", balance) for balance in ("1000", "0", FULL)]
        requests = [TransferRequest(sender, full if n in {13, 77} else recipient, rub("1"), str(n)) for n in range(100)]
        results = await alice(own_bank.client.batch_transfer(requests))
        assert [n for n, result in enumerate(results) if not isinstance(result, Receipt)] == [13, 77]
        assert results[13] == results[77] == InternalError()
        assert await own_bank.balance(sender) == 902
        await assert_ledger_invariants(own_bank.sql)

    async def test_key_of_a_rejected_transfer_is_not_stored(self, own_bank: RunningBank) -> None:
        alice = own_bank.user("alice")
        sender, full = await own_bank.open("alice"), await own_bank.open("alice", FULL)
        with pytest.raises(InternalError):
            await alice(own_bank.client.transfer(sender, full, rub("1"), "k"))
        await alice(own_bank.client.transfer(full, sender, rub("5"), "make room"))
        assert (await alice(own_bank.client.transfer(sender, full, rub("1"), "k"))).posting.balance_after == rub("1004")


class TestOverload:
    async def test_batch_beyond_the_queue_size_is_refused_completely(
        self, bank: RunningBank, alice: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(group_commit, "_QUEUE_SIZE", 2)
        sender, recipient, run = await bank.open("alice"), await bank.open("bob"), uuid4()
        requests = [TransferRequest(sender, recipient, rub("1"), f"{run} {n}") for n in range(3)]
        with pytest.raises(ResourceExhausted):
            await alice(bank.client.batch_transfer(requests))
        assert (await bank.row(sender))["version"] == 0
        assert len(await alice(bank.client.batch_transfer(requests[:2]))) == 2

    async def test_refusal_of_an_overloaded_bank_has_a_retry_delay(
        self, bank: RunningBank, alice: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(group_commit, "_QUEUE_SIZE", 0)
        request = bank_pb2.TransferMoneyRequest(
            sender_id=str(await bank.open("alice")),
            recipient_id=str(await bank.open("bob")),
            amount={"currency_code": "RUB", "units": 1},
            idempotency_key=str(uuid4()),
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await bank.stub.TransferMoney(request, metadata=alice.metadata)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status, hint = rpc_status.from_call(caught.value), error_details_pb2.RetryInfo()  # type: ignore[arg-type]
        assert status is not None
        assert any(detail.Unpack(hint) for detail in status.details)
        assert hint.retry_delay.ToSeconds() == 1
