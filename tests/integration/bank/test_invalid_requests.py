from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.type.money_pb2 import Money as MoneyMessage
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from kit.rpc.status import error_from_status
from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.client import SERVICE
from tests.integration.bank.harness import Caller, RunningBank, assert_ledger_invariants
from wallet.errors import InvalidInput

SENDER, RECIPIENT = "123e4567-e89b-12d3-a456-426614174000", "987e6543-e21b-34d3-c456-426614174999"
AMOUNT = MoneyMessage(currency_code="RUB", units=10)


def money(units: int = 0, nanos: int = 0, currency: str = "RUB") -> MoneyMessage:
    return MoneyMessage(currency_code=currency, units=units, nanos=nanos)


def transfer(**changed: Any) -> bank_pb2.TransferMoneyRequest:
    good = {"sender_id": SENDER, "recipient_id": RECIPIENT, "amount": AMOUNT, "idempotency_key": "k"}
    return bank_pb2.TransferMoneyRequest(**{**good, **changed})


def deposit(**changed: Any) -> bank_pb2.DepositMoneyRequest:
    return bank_pb2.DepositMoneyRequest(**{"account_id": SENDER, "amount": AMOUNT, "idempotency_key": "k", **changed})


async def refused_fields(call: Callable[[], Any]) -> list[str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # has every method that `from_call` uses
    assert status is not None
    error = error_from_status(status)
    assert isinstance(error, InvalidInput)
    return [violation.field for violation in error.violations]


bad_ids = pytest.mark.parametrize(
    "text",
    ["", "me", SENDER[:-1], SENDER + "0", SENDER.replace("-", ""), f"{{{SENDER}}}", f"urn:uuid:{SENDER}", f" {SENDER}"],
)
bad_amounts = pytest.mark.parametrize(
    "amount",
    [
        pytest.param(None, id="none"),
        pytest.param(money(), id="zero"),
        pytest.param(money(-1), id="negative"),
        pytest.param(money(nanos=-10_000_000), id="minus one kopeck"),
        pytest.param(money(1, -1), id="units and nanos differ in sign"),
        pytest.param(money(-1, 1), id="nanos and units differ in sign"),
        pytest.param(money(1, 10**9), id="nanos of a whole unit"),
        pytest.param(money(1, 2**31 - 1), id="largest 32-bit nanos"),
        pytest.param(money(0, 1_000_000), id="a tenth of a kopeck"),
        pytest.param(money(0, 500_000_000, "JPY"), id="half a yen"),
        pytest.param(money(10**12, 10_000_000), id="a kopeck above the maximum"),
        pytest.param(money(2**63 - 1), id="largest 64-bit units"),
        pytest.param(money(-(2**63)), id="smallest 64-bit units"),
        pytest.param(money(1, 0, ""), id="no currency"),
        pytest.param(money(1, 0, "XXX"), id="an unknown currency"),
        pytest.param(money(1, 0, "rub"), id="a currency in small letters"),
        pytest.param(money(1, 0, "X" * 100_000), id="a currency of a hundred thousand letters"),
    ],
)
bad_keys = pytest.mark.parametrize("key", ["", "x" * 256, "x" * 100_000, "a\nb", "a\0b", "ключ"])


class TestTransferMoney:
    @pytest.mark.parametrize(("name", "field"), [("sender_id", "senderId"), ("recipient_id", "recipientId")])
    @bad_ids
    async def test_transfer_with_a_malformed_id_names_the_field(
        self, bank: RunningBank, alice: Caller, name: str, field: str, text: str
    ) -> None:
        request = transfer(**{name: text})
        assert await refused_fields(lambda: bank.stub.TransferMoney(request, metadata=alice.metadata)) == [field]

    @bad_amounts
    async def test_transfer_with_an_invalid_amount_names_the_field(
        self, bank: RunningBank, alice: Caller, amount: MoneyMessage | None
    ) -> None:
        request = transfer(amount=amount)
        assert await refused_fields(lambda: bank.stub.TransferMoney(request, metadata=alice.metadata)) == ["amount"]

    @bad_keys
    async def test_transfer_with_an_invalid_key_names_the_field(
        self, bank: RunningBank, alice: Caller, key: str
    ) -> None:
        request = transfer(idempotency_key=key)
        fields = await refused_fields(lambda: bank.stub.TransferMoney(request, metadata=alice.metadata))
        assert fields == ["idempotencyKey"]

    async def test_transfer_to_the_sender_names_the_recipient(self, bank: RunningBank, alice: Caller) -> None:
        request = transfer(recipient_id=SENDER)
        fields = await refused_fields(lambda: bank.stub.TransferMoney(request, metadata=alice.metadata))
        assert fields == ["recipientId"]

    async def test_transfer_reports_all_invalid_fields(self, bank: RunningBank, alice: Caller) -> None:
        request = transfer(recipient_id=SENDER, amount=money(), idempotency_key="")
        fields = await refused_fields(lambda: bank.stub.TransferMoney(request, metadata=alice.metadata))
        assert fields == ["amount", "recipientId", "idempotencyKey"]

    async def test_invalid_transfer_stores_no_key(self, own_bank: RunningBank) -> None:
        alice = own_bank.user("alice")
        sender, recipient = await own_bank.open("alice"), await own_bank.open("bob")
        ids = {"sender_id": str(sender), "recipient_id": str(recipient)}
        with pytest.raises(grpc.aio.AioRpcError):
            await own_bank.stub.TransferMoney(transfer(**ids, amount=money(-1)), metadata=alice.metadata)
        assert (await own_bank.count_rows())["idempotency_keys"] == 0
        assert (await own_bank.stub.TransferMoney(transfer(**ids), metadata=alice.metadata)).sender_version == 1
        await assert_ledger_invariants(own_bank.sql)


class TestDepositMoney:
    @bad_ids
    async def test_deposit_with_a_malformed_id_names_the_field(
        self, bank: RunningBank, card: Caller, text: str
    ) -> None:
        request = deposit(account_id=text)
        assert await refused_fields(lambda: bank.stub.DepositMoney(request, metadata=card.metadata)) == ["accountId"]

    @bad_amounts
    async def test_deposit_with_an_invalid_amount_names_the_field(
        self, bank: RunningBank, card: Caller, amount: MoneyMessage | None
    ) -> None:
        request = deposit(amount=amount)
        assert await refused_fields(lambda: bank.stub.DepositMoney(request, metadata=card.metadata)) == ["amount"]

    @bad_keys
    async def test_deposit_with_an_invalid_key_names_the_field(self, bank: RunningBank, card: Caller, key: str) -> None:
        request = deposit(idempotency_key=key)
        fields = await refused_fields(lambda: bank.stub.DepositMoney(request, metadata=card.metadata))
        assert fields == ["idempotencyKey"]

    @pytest.mark.parametrize(
        "descriptor", [{str(n): "" for n in range(17)}, {"x" * 129: ""}, {"x": "x" * 129}, {"x": "a\0b"}]
    )
    async def test_deposit_with_an_invalid_descriptor_names_the_field(
        self, bank: RunningBank, card: Caller, descriptor: dict[str, str]
    ) -> None:
        request = deposit(descriptor=descriptor)
        assert await refused_fields(lambda: bank.stub.DepositMoney(request, metadata=card.metadata)) == ["descriptor"]


class TestReads:
    @bad_ids
    async def test_reads_with_a_malformed_id_name_the_field(
        self, bank: RunningBank, alice: Caller, card: Caller, text: str
    ) -> None:
        stub, metadata = bank.stub, alice.metadata
        balance, transfer = bank_pb2.GetBalanceRequest(account_id=text), bank_pb2.GetTransferRequest(id=text)
        events = bank_pb2.ListEventsRequest(account_id=text)
        several = bank_pb2.BatchGetAccountsRequest(ids=[SENDER, text])
        transfers = bank_pb2.BatchGetTransfersRequest(ids=[SENDER, text])
        assert await refused_fields(lambda: stub.GetBalance(balance, metadata=metadata)) == ["accountId"]
        assert await refused_fields(lambda: stub.GetTransfer(transfer, metadata=metadata)) == ["id"]
        assert await refused_fields(lambda: stub.ListEvents(events, metadata=card.metadata)) == ["accountId"]
        assert await refused_fields(lambda: stub.BatchGetAccounts(several, metadata=metadata)) == ["ids"]
        assert await refused_fields(lambda: stub.BatchGetTransfers(transfers, metadata=metadata)) == ["ids"]

    async def test_batch_reads_accept_at_most_1000_ids(self, bank: RunningBank, alice: Caller) -> None:
        ids = [f"{n:08x}{SENDER[8:]}" for n in range(1001)]
        stub, metadata = bank.stub, alice.metadata
        accounts, transfers = bank_pb2.BatchGetAccountsRequest, bank_pb2.BatchGetTransfersRequest
        account_results = await stub.BatchGetAccounts(accounts(ids=ids[:1000]), metadata=metadata)
        assert [result.key for result in account_results.results] == ids[:1000]
        transfer_results = await stub.BatchGetTransfers(transfers(ids=ids[:1000]), metadata=metadata)
        assert [result.key for result in transfer_results.results] == ids[:1000]
        assert await refused_fields(lambda: stub.BatchGetAccounts(accounts(ids=ids), metadata=metadata)) == ["ids"]
        assert await refused_fields(lambda: stub.BatchGetTransfers(transfers(ids=ids), metadata=metadata)) == ["ids"]

    @pytest.mark.parametrize("page_size", [-1, 10_001, 2**31 - 1])
    async def test_invalid_page_size_names_the_field(
        self, bank: RunningBank, analytics: Caller, page_size: int
    ) -> None:
        versions = bank_pb2.ListAccountVersionsRequest(page_size=page_size)
        events = bank_pb2.ListEventsRequest(account_id=SENDER, page_size=page_size)
        stub, metadata = bank.stub, analytics.metadata
        assert await refused_fields(lambda: stub.ListAccountVersions(versions, metadata=metadata)) == ["pageSize"]
        assert await refused_fields(lambda: stub.ListEvents(events, metadata=metadata)) == ["pageSize"]

    async def test_malformed_page_start_names_the_field(self, bank: RunningBank, analytics: Caller) -> None:
        request = bank_pb2.ListAccountVersionsRequest(after_account_id="me")
        fields = await refused_fields(lambda: bank.stub.ListAccountVersions(request, metadata=analytics.metadata))
        assert fields == ["afterAccountId"]

    async def test_list_events_accepts_all_64_bit_versions(self, bank: RunningBank, card: Caller) -> None:
        for version in (-(2**63), 2**63 - 1):
            request = bank_pb2.ListEventsRequest(account_id=SENDER, after_version=version)
            assert not (await bank.stub.ListEvents(request, metadata=card.metadata)).events


class TestReflection:
    async def test_reflection_returns_the_contract_without_a_token(self, bank: RunningBank) -> None:
        async with grpc.aio.insecure_channel(bank.target) as channel:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # accepts grpc.aio
            requests = [
                reflection_pb2.ServerReflectionRequest(list_services="*"),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            ]
            listed, described = [response async for response in stub.ServerReflectionInfo(iter(requests))]
        assert SERVICE in {service.name for service in listed.list_services_response.service}
        files = [
            FileDescriptorProto.FromString(file) for file in described.file_descriptor_response.file_descriptor_proto
        ]
        (methods,) = [service.method for file in files for service in file.service if service.name == "BankService"]
        assert {"TransferMoney", "DepositMoney", "GetBalance", "ListEvents"} <= {method.name for method in methods}
