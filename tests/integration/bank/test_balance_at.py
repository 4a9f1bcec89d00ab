"""Balances after a version and at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.client import BalanceAt, BalanceRequest, Event
from tests.integration.bank.harness import Caller, RunningBank, clearing_account, rub
from wallet.errors import AccountNotFound, InvalidInput
from wallet.money import Money

TICK = timedelta(microseconds=1)


async def read_history(bank: RunningBank, account: UUID) -> list[Event]:
    return await bank.service("analytics")(bank.client.list_events(account, 0))


def balances(account: UUID, opening: Money, history: Sequence[Event]) -> list[BalanceAt]:
    """Return the balance after each version, from version 0, as the events of the account have it."""
    found = [BalanceAt(opening, 0, None)]
    for event in history:
        posting = event.sender if event.sender.account_id == account else event.recipient
        found.append(BalanceAt(posting.balance_after, posting.version, event.transfer.created_at))
    return found


async def move(bank: RunningBank, caller: Caller, sender: UUID, recipient: UUID, *amounts: str) -> None:
    for amount in amounts:
        await caller(bank.client.transfer(sender, recipient, rub(amount), str(uuid4())))


class TestPoints:
    async def test_every_version_and_time_has_the_balance_of_its_event(self, bank: RunningBank, alice: Caller) -> None:
        account, other = await bank.open("alice", "100.00"), await bank.open("alice", "50.00")
        await move(bank, alice, account, other, "1", "2", "3")
        await move(bank, alice, other, account, "4", "5")
        for id_, opening in ((account, "100.00"), (other, "50.00")):
            expected = balances(id_, rub(opening), await read_history(bank, id_))
            requests = [BalanceRequest(id_, version=each.version) for each in expected]
            assert list((await alice(bank.client.batch_get_balances_at(requests))).values()) == expected
            times = [BalanceRequest(id_, time=each.occurred_at) for each in expected[1:]]
            assert list((await alice(bank.client.batch_get_balances_at(times))).values()) == expected[1:]
            before = [BalanceRequest(id_, time=each.time and each.time - TICK) for each in times]
            assert list((await alice(bank.client.batch_get_balances_at(before))).values()) == expected[:-1]

    async def test_account_without_operations_has_its_opening_balance(self, bank: RunningBank, alice: Caller) -> None:
        account = await bank.open("alice", "7.00")
        opening = BalanceAt(rub("7.00"), 0, None)
        for request in (
            BalanceRequest(account, version=0),
            BalanceRequest(account, version=1),
            BalanceRequest(account, time=datetime(1, 1, 1, tzinfo=UTC)),
            BalanceRequest(account, time=datetime.max.replace(tzinfo=UTC)),
        ):
            assert await alice(bank.client.get_balance_at(request)) == opening

    async def test_time_before_the_account_was_opened_has_the_opening_balance(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        account = await bank.open("alice", "7.00")
        await move(bank, alice, account, await bank.open("bob"), "1")
        opened = (await bank.row(account))["created_at"]
        request = BalanceRequest(account, time=opened - timedelta(days=1))
        assert await alice(bank.client.get_balance_at(request)) == BalanceAt(rub("7.00"), 0, None)

    async def test_time_and_version_of_the_future_have_the_current_balance(
        self, bank: RunningBank, alice: Caller
    ) -> None:
        account = await bank.open("alice", "7.00")
        await move(bank, alice, account, await bank.open("bob"), "1", "2")
        current = balances(account, rub("7.00"), await read_history(bank, account))[-1]
        assert (current.balance, current.version) == (rub("4.00"), 2)
        for request in (
            BalanceRequest(account, version=3),
            BalanceRequest(account, version=2**63 - 1),
            BalanceRequest(account, time=datetime.now(UTC) + timedelta(days=365)),
        ):
            assert await alice(bank.client.get_balance_at(request)) == current

    async def test_last_of_several_operations_of_one_time_counts(self, bank: RunningBank, alice: Caller) -> None:
        account, other = await bank.open("alice", "10.00"), await bank.open("bob", "10.00")
        time = datetime(2026, 1, 2, tzinfo=UTC)
        for version, at in enumerate([time - TICK, time, time, time, time + TICK], start=1):
            await insert_transfer(bank, account, other, version, at)
        for at, version in ((time - 2 * TICK, 0), (time - TICK, 1), (time, 4), (time + TICK, 5)):
            found = await alice(bank.client.get_balance_at(BalanceRequest(account, time=at)))
            assert (found.version, found.balance) == (version, rub(str(10 - version)))


async def insert_transfer(bank: RunningBank, sender: UUID, recipient: UUID, version: int, at: datetime) -> None:
    """Insert a transfer of 1.00 with its rows. It is the operation with this version of both accounts."""
    transfer = uuid4()
    async with bank.sql.acquire() as sql, sql.transaction():
        await sql.execute(
            """
            INSERT INTO transfers (id, kind, sender_id, recipient_id, amount, currency, created_at, idempotency_key,
                                   sender_version, recipient_version)
            VALUES ($1::uuid, 'TRANSFER', $2, $3, 1, 'RUB', $5, $1::uuid::text, $4, $4)
            """,
            transfer,
            sender,
            recipient,
            version,
            at,
        )
        key = "INSERT INTO idempotency_keys VALUES ('users|alice', 'transfer', $1::uuid::text, '', $1::uuid)"
        await sql.execute(key, transfer)
        for account, amount in ((sender, -1), (recipient, 1)):
            await sql.execute(
                """
                WITH changed AS (
                    UPDATE accounts SET version = $2, balance = balance + $3 WHERE id = $1 RETURNING id, balance
                )
                INSERT INTO entries (account_id, version, transfer_id, amount, balance_after)
                SELECT id, $2, $4, $3, balance FROM changed
                """,
                account,
                version,
                amount,
                transfer,
            )


class TestBatches:
    async def test_results_are_in_request_order_with_an_error_for_each_hidden_account(
        self, bank: RunningBank, alice: Caller, operator: Caller
    ) -> None:
        mine, bobs, missing = await bank.open("alice", "1.00"), await bank.open("bob", "2.00"), uuid4()
        requests = [BalanceRequest(id_, version=0) for id_ in (bobs, mine, missing, clearing_account())]
        hidden = {each: AccountNotFound(str(each.account_id)) for each in requests}
        visible = BalanceAt(rub("1.00"), 0, None)
        assert await alice(bank.client.batch_get_balances_at(requests)) == hidden | {requests[1]: visible}
        found = await operator(bank.client.batch_get_balances_at(requests[:3]))
        assert found[requests[0]] == BalanceAt(rub("2.00"), 0, None)
        assert found[requests[2]] == hidden[requests[2]]
        assert await alice(bank.client.batch_get_balances_at([])) == {}

    async def test_one_account_at_many_points_is_one_call(self, bank: RunningBank, alice: Caller) -> None:
        account, other = await bank.open("alice", "10.00"), await bank.open("alice", "0")
        await move(bank, alice, account, other, "1")
        requests = [BalanceRequest(id_, version=version) for id_ in (account, other) for version in (1, 0)]
        found = await alice(bank.client.batch_get_balances_at(requests))
        assert [str(each.balance) for each in found.values() if isinstance(each, BalanceAt)] == [
            "9.00",
            "10.00",
            "1.00",
            "0.00",
        ]


class TestInvalidRequests:
    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            ({"account_id": str(uuid4())}, "requests.at"),
            ({"account_id": str(uuid4()), "version": -1}, "requests.version"),
            ({"account_id": "no", "version": 1}, "requests.accountId"),
        ],
    )
    async def test_invalid_request_is_refused(
        self, bank: RunningBank, alice: Caller, request_: dict[str, object], field: str
    ) -> None:
        message = ParseDict({"requests": [request_]}, bank_pb2.BatchGetBalancesAtRequest())
        with alice.calling(), pytest.raises(InvalidInput) as caught:
            await bank.client._calls.unary(bank.stub.BatchGetBalancesAt, message)
        assert [each.field for each in caught.value.violations] == [field]

    async def test_time_outside_of_the_calendar_is_refused(self, bank: RunningBank, alice: Caller) -> None:
        time = Timestamp(seconds=10**12)
        request = bank_pb2.BatchGetBalancesAtRequest.Request(account_id=str(uuid4()), time=time)
        message = bank_pb2.BatchGetBalancesAtRequest(requests=[request])
        with alice.calling(), pytest.raises(InvalidInput, match="years 1 to 9999"):
            await bank.client._calls.unary(bank.stub.BatchGetBalancesAt, message)

    async def test_more_than_1000_requests_are_refused(self, bank: RunningBank, alice: Caller) -> None:
        requests = [BalanceRequest(uuid4(), version=0) for _ in range(1_001)]
        with pytest.raises(InvalidInput, match="at most 1000"):
            await alice(bank.client.batch_get_balances_at(requests))


@given(gaps=st.lists(st.integers(0, 2), min_size=1, max_size=12), shift=st.integers(-3, 30))
@settings(max_examples=40, deadline=None)
async def test_binary_search_finds_what_a_scan_finds(bank: RunningBank, gaps: list[int], shift: int) -> None:
    """Operations whose times differ by 0 to 2 microseconds, and any time around them."""
    account, other = await bank.open("alice", "100.00"), await bank.open("bob")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times, time = [], start
    for version, gap in enumerate(gaps, start=1):
        time += gap * TICK
        times.append(time)
        await insert_transfer(bank, account, other, version, time)
    at = start + shift * TICK
    expected = sum(each <= at for each in times)
    found = await bank.user("alice")(bank.client.get_balance_at(BalanceRequest(account, time=at)))
    assert (found.version, found.balance) == (expected, rub(str(100 - expected)))
