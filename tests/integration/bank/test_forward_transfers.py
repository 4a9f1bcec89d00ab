"""Execution of forwarded transfers: results, queue, logs, metrics and traces of each item."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid4

import grpc
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from kit.auth.principal import Principal
from kit.rpc import server
from kit.rpc.channel import ClientLimits
from kit.rpc.request_context import current_request
from kit.runtime.settings import TracingSettings
from kit.telemetry import tracing
from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.client import SERVICE, BankClient, TransferRequest
from subgraphs.bank.service.api import forwarding
from subgraphs.bank.service.api.converters import command_from_proto
from subgraphs.bank.service.application import group_commit
from tests.collector import run_collector
from tests.forwarded import Item, item, outcome, transfer_request
from tests.integration.bank.forwarding import error, forward, open_call
from tests.integration.bank.harness import RunningBank, assert_ledger_invariants, find_lock_waiter, rub
from tests.waiting import until
from wallet.errors import (
    AccountNotFound,
    DeadlineExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    InternalError,
    InvalidInput,
    ResourceExhausted,
    WalletError,
)

METHOD: Final = f"/{SERVICE}/TransferMoney"


def count_calls(method: str = METHOD) -> dict[str, float]:
    """Return the number of calls of a method by status code."""
    return {
        sample.labels["code"]: sample.value
        for metric in REGISTRY.collect()
        if metric.name == "wallet_rpc_duration_seconds"
        for sample in metric.samples
        if sample.name.endswith("_count") and sample.labels["method"] == method
    }


def added(before: dict[str, float]) -> dict[str, float]:
    """Return the number of calls of TransferMoney since then, by status code."""
    now = count_calls()
    return {code: value - before.get(code, 0) for code, value in now.items() if value != before.get(code, 0)}


@asynccontextmanager
async def held_ledger(bank: RunningBank) -> AsyncIterator["asyncio.Task[Any]"]:
    """Hold a transfer in its commit during the block, so that further transfers stay in the queue; yield its task."""
    sender, recipient = await bank.open("holder"), await bank.open("bob")
    async with bank.sql.acquire() as other, other.transaction():
        await other.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", sender)
        held = asyncio.create_task(bank.user("holder")(bank.client.transfer(sender, recipient, rub("1"), "held")))
        await until(lambda: find_lock_waiter(bank.sql, "FOR NO KEY UPDATE"))
        yield held
    await held


class TestExecution:
    async def test_results_are_those_of_each_item(self, bank: RunningBank) -> None:
        alices, bobs = await bank.open("alice", "10"), await bank.open("bob", "5")
        alice, bob, run = bank.keys.user("alice"), bank.keys.user("bob"), uuid4().hex
        paid, poor, missing, anothers, back = await forward(
            bank,
            item(transfer_request(alices, bobs, f"{run} 1", 6), alice),
            item(transfer_request(alices, bobs, f"{run} 2", 9), alice),
            item(transfer_request(alices, UUID(int=9), f"{run} 3"), alice),
            item(transfer_request(bobs, alices, f"{run} 4"), alice),
            item(transfer_request(bobs, alices, f"{run} 1", 2), bob),  # another caller's key is another key
        )
        assert (paid.value.sender_version, paid.value.sender_balance.units, paid.value.is_replay) == (1, 4, False)
        assert isinstance(error(poor), InsufficientFunds)
        assert error(missing) == AccountNotFound(str(UUID(int=9)))
        assert error(anothers) == AccountNotFound(str(bobs))
        assert (back.value.transfer.sender_id, back.value.transfer.amount.units) == (str(bobs), 2)
        assert (await bank.balance(alices), await bank.balance(bobs)) == (Decimal(6), Decimal(9))
        await assert_ledger_invariants(bank.sql)

    async def test_all_ways_of_a_transfer_share_idempotency_keys(self, bank: RunningBank) -> None:
        sender, recipient, run = await bank.open("alice", "10"), await bank.open("bob", "0"), uuid4().hex
        alice, token = bank.user("alice"), bank.keys.user("alice")
        requests = [transfer_request(sender, recipient, f"{run} {n}") for n in range(3)]
        alone = await alice(bank.client.transfer(sender, recipient, rub("1"), f"{run} 0"))
        (in_a_batch,) = await alice(
            bank.client.batch_transfer([TransferRequest(sender, recipient, rub("1"), f"{run} 1")])
        )
        assert not isinstance(in_a_batch, WalletError)
        results = await forward(bank, *(item(request, token) for request in requests))
        assert [result.value.is_replay for result in results] == [True, True, False]
        assert [result.value.transfer.id for result in results[:2]] == [
            str(alone.transfer.id),
            str(in_a_batch.transfer.id),
        ]
        again = await alice(bank.client.transfer(sender, recipient, rub("1"), f"{run} 2"))
        assert (str(again.transfer.id), again.is_replay) == (results[2].value.transfer.id, True)
        (conflict,) = await forward(bank, item(transfer_request(sender, recipient, f"{run} 2", 2), token))
        assert error(conflict) == IdempotencyConflict(f"{run} 2")
        assert await bank.balance(sender) == 7

    async def test_refusal_is_replayed_with_its_mark(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("alice", "0"), await bank.open("bob")
        poor = item(transfer_request(sender, recipient, uuid4().hex), bank.keys.user("alice"))
        (first,), (again,) = [await forward(bank, poor) for _ in range(2)]
        assert error(first) == error(again)
        assert (error(first).is_replay, error(again).is_replay) == (False, True)

    async def test_duplicates_in_one_call_move_money_once(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("alice", "10"), await bank.open("bob")
        same = item(transfer_request(sender, recipient, uuid4().hex), bank.keys.user("alice"))
        results = await forward(bank, *[same] * 5)
        assert len({result.value.transfer.id for result in results}) == 1
        assert sorted(result.value.is_replay for result in results) == [False, True, True, True, True]
        assert await bank.balance(sender) == 9

    async def test_malformed_item_is_refused_alone_with_its_fields(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        token = bank.keys.user("alice")
        malformed = {
            "senderId": transfer_request("me", recipient, uuid4().hex),
            "recipientId": transfer_request(sender, "you", uuid4().hex),
            "amount": transfer_request(sender, recipient, uuid4().hex, -1),
            "idempotencyKey": transfer_request(sender, recipient, ""),
        }
        good, empty, *refused = await forward(
            bank,
            item(transfer_request(sender, recipient, uuid4().hex), token),
            Item(token=token, timeout_ms=1_000),
            *(item(request, token) for request in malformed.values()),
        )
        assert outcome(good) == "ok"
        assert isinstance(error(empty), InvalidInput)
        fields = []
        for result in refused:
            invalid = error(result)
            assert isinstance(invalid, InvalidInput)
            fields += [violation.field for violation in invalid.violations]
        assert fields == list(malformed)

    @pytest.mark.parametrize("size", [0, 501])
    async def test_number_of_items_is_limited(self, bank: RunningBank, size: int) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        one = item(transfer_request(sender, recipient, uuid4().hex), bank.keys.user("alice"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await forward(bank, *[one] * size)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await bank.row(sender))["version"] == 0

    async def test_largest_call_is_executed(self, bank: RunningBank) -> None:
        sender, recipient, run = await bank.open("alice"), await bank.open("bob"), uuid4().hex
        token = bank.keys.user("alice")
        results = await forward(
            bank, *(item(transfer_request(sender, recipient, f"{run} {n}"), token) for n in range(500))
        )
        assert {outcome(result) for result in results} == {"ok"}
        assert await bank.balance(sender) == 500

    async def test_responses_name_the_process_of_the_bank(self, bank: RunningBank) -> None:
        processes = set()
        for _ in range(2):
            one = item(transfer_request(await bank.open("alice"), await bank.open("bob"), uuid4().hex), "x")
            processes |= {response.process_id async for response in open_call(bank, one)}
        (process_id,) = processes
        assert UUID(process_id).version == 4


class TestQueue:
    async def test_timeout_of_an_item_in_the_queue_drops_only_this_item(self, own_bank: RunningBank) -> None:
        bank = own_bank
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        token = bank.keys.user("alice")
        await forward(bank, item(transfer_request(sender, recipient, "first"), token))  # the token is verified
        async with held_ledger(bank):
            call = open_call(
                bank,
                item(transfer_request(sender, recipient, "late"), token, timeout_ms=1),
                item(transfer_request(sender, recipient, "in time"), token),
                item(transfer_request(recipient, sender, "refused"), token),
                item(transfer_request(sender, recipient, "no time"), token, timeout_ms=0),
                item(transfer_request(sender, recipient, "anonymous"), ""),
            )
            responses = aiter(call)
            assert [result.index for result in (await anext(responses)).results] == [4]  # no item waits for the ledger
        results = {result.index: result async for response in responses for result in response.results}
        for late in (0, 3):
            assert isinstance(error(results[late]), DeadlineExceeded)
            assert "with the same idempotency key" in error(results[late]).message
        assert outcome(results[1]) == "ok"
        assert outcome(results[2]) == "404"
        assert (await bank.row(sender))["version"] == 2

    async def test_cancelled_call_drops_its_queued_items(self, own_bank: RunningBank) -> None:
        bank, before = own_bank, count_calls()
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        token = bank.keys.user("alice")
        async with held_ledger(bank):
            call = open_call(
                bank,
                *(item(transfer_request(sender, recipient, str(n)), token) for n in range(3)),
                item(transfer_request(sender, recipient, "anonymous"), ""),
            )
            assert [result.index for result in (await call.read()).results] == [3]
            call.cancel()

            async def are_dropped() -> bool:
                return added(before).get("CANCELLED") == 3

            await until(are_dropped)
        await forward(bank, item(transfer_request(sender, recipient, "later"), token))
        assert (await bank.row(sender))["version"] == 1

    async def test_full_queue_refuses_items_singly(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bank = own_bank
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        token = bank.keys.user("alice")
        await forward(bank, item(transfer_request(sender, recipient, "first"), token))
        monkeypatch.setattr(group_commit, "_QUEUE_SIZE", 2)
        async with held_ledger(bank):
            call = open_call(bank, *(item(transfer_request(sender, recipient, str(n)), token) for n in range(4)))
            responses = aiter(call)
            refused = (await anext(responses)).results
            assert {result.index: error(result) for result in refused} == {
                2: ResourceExhausted(),
                3: ResourceExhausted(),
            }
        results = {result.index: outcome(result) async for response in responses for result in response.results}
        assert results == {0: "ok", 1: "ok"}

    async def test_bulk_transfers_in_the_queue_do_not_hold_up_items(
        self, own_bank: RunningBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(group_commit, "_BATCH_SIZE", 10)
        bank = own_bank
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        alice, token = bank.user("alice"), bank.keys.user("alice")
        await forward(bank, item(transfer_request(sender, recipient, "first"), token))
        async with held_ledger(bank):
            bulk = [
                bank.stub.BatchTransferMoney(
                    bank_pb2.BatchTransferMoneyRequest(
                        transfers=[transfer_request(sender, recipient, f"bulk {run} {n}") for n in range(9)]
                    ),
                    metadata=alice.metadata,
                )
                for run in range(20)
            ]
            items = [item(transfer_request(sender, recipient, str(n)), token) for n in range(2)]
            call = open_call(bank, *items, item(transfer_request(sender, recipient, "anonymous"), ""))
            responses = aiter(call)
            await anext(responses)  # the items are in the queue
            version = await bank.sql.fetchval("SELECT version FROM accounts WHERE id = $1", sender)
        results = [result async for response in responses for result in response.results]
        for each in bulk:
            await each
        # Two batches may have been taken before the items, and not committed yet.
        assert max(result.value.sender_version for result in results) <= version + 3 * 10


def add_context(_: object, __: str, event: Any) -> Any:
    """Add what the log adds to each line: the request id and the caller."""
    current = current_request.get(None)
    if current is not None:
        event["request_id"] = current.request_id
        event["caller"] = current.principal and current.principal.subject
    return event


class TestLogsMetricsAndTraces:
    @pytest.mark.parametrize("are_verified_before", [True, False])
    async def test_log_line_of_an_item_is_that_of_transfer_money_with_its_request_and_caller(
        self, bank: RunningBank, monkeypatch: pytest.MonkeyPatch, *, are_verified_before: bool
    ) -> None:
        monkeypatch.setattr(server, "_SLOW_CALL_SECONDS", -1)
        run = uuid4().hex
        sender, recipient = await bank.open(f"alice {run}"), await bank.open("bob")
        tokens = {name: bank.keys.user(f"{name} {run}") for name in ("alice", "bob", "carol")}
        if are_verified_before:
            await forward(bank, *(item(transfer_request(sender, sender, run), token) for token in tokens.values()))
        requests = {
            "alice": transfer_request(sender, recipient, f"{run} 1"),
            "bob": transfer_request(sender, recipient, f"{run} 2"),  # not found
            "carol": transfer_request(sender, sender, f"{run} 3"),  # invalid
        }
        with capture_logs(processors=[add_context]) as lines:
            await forward(
                bank,
                *(item(requests[name], token, request_id=f"{run}-{name}") for name, token in tokens.items()),
                item(requests["alice"], "", request_id=f"{run}-anonymous"),
            )
        logged = {line["request_id"]: line for line in lines if line.get("request_id", "").startswith(run)}
        assert {line["event"] for line in logged.values()} == {"slow or failed call"}
        assert {line["method"] for line in logged.values()} == {METHOD}
        assert {name.removeprefix(f"{run}-"): (line["caller"], line["code"]) for name, line in logged.items()} == {
            "alice": (f"alice {run}", "OK"),
            "bob": (f"bob {run}", "NOT_FOUND"),
            "carol": (f"carol {run}", "INVALID_ARGUMENT"),
            "anonymous": (None, "UNAUTHENTICATED"),
        }
        assert not [token for token in tokens.values() if token in str(lines)]

    async def test_unexpected_error_of_an_item_is_logged_without_tokens(
        self, bank: RunningBank, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail_for_bob(caller: Principal, request: bank_pb2.TransferMoneyRequest) -> Any:
            if caller.subject == "bob":
                raise ValueError("unexpected")
            return command_from_proto(caller, request)

        monkeypatch.setattr(forwarding, "command_from_proto", fail_for_bob)
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        tokens = [bank.keys.user("alice"), bank.keys.user("bob"), bank.keys.user("alice")]
        for _ in range(2):  # the second time, the tokens are verified
            with capture_logs(processors=[add_context]) as lines:
                results = await forward(
                    bank,
                    *(
                        item(transfer_request(sender, recipient, uuid4().hex), token, request_id=f"request-{n}")
                        for n, token in enumerate(tokens)
                    ),
                )
            assert [outcome(result) for result in (results[0], results[2])] == ["ok", "ok"]
            assert error(results[1]) == InternalError()
            (line,) = [line for line in lines if line["event"] == "unexpected error"]
            assert (line["method"], line["request_id"], line["caller"]) == (METHOD, "request-1", "bob")
            text = "".join([*map(str, lines), caplog.text, *traceback.format_exception(line["exc_info"])])
            assert "unexpected" in text
            assert not [token for token in (*tokens, bank.keys.service("gateway")[:40]) if token in text]

    async def test_metrics_count_each_item_as_a_call_of_transfer_money(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        calls, forwarded = count_calls(), count_calls(f"/{SERVICE}/ForwardTransfers")
        await forward(
            bank,
            item(transfer_request(sender, recipient, uuid4().hex), bank.keys.user("alice")),
            item(transfer_request(sender, recipient, uuid4().hex), bank.keys.user("alice")),
            item(transfer_request(sender, recipient, uuid4().hex), bank.keys.user("bob")),
            item(transfer_request(sender, recipient, uuid4().hex), bank.keys.service("card")),
            item(transfer_request(sender, recipient, uuid4().hex), ""),
            item(transfer_request(sender, recipient, ""), bank.keys.user("alice")),
        )
        assert added(calls) == {
            "OK": 2,
            "NOT_FOUND": 1,
            "PERMISSION_DENIED": 1,
            "UNAUTHENTICATED": 1,
            "INVALID_ARGUMENT": 1,
        }

        async def is_counted() -> bool:
            return count_calls(f"/{SERVICE}/ForwardTransfers").get("OK", 0) == forwarded.get("OK", 0) + 1

        await until(is_counted)

    async def test_span_of_an_item_is_a_child_of_the_items_trace(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        parents = {name: (uuid4().hex, uuid4().hex[:16]) for name in ("alice", "bob", "unsampled")}
        with run_collector() as collector:
            settings = TracingSettings.model_validate({"otlp_endpoint": collector.endpoint, "trace_ratio": 0})
            with tracing.export_spans("bank", settings):
                await forward(
                    bank,
                    *(
                        item(
                            transfer_request(sender, recipient, uuid4().hex),
                            bank.keys.user("alice" if name == "unsampled" else name),
                            traceparent=f"00-{trace_id}-{span_id}-{'00' if name == 'unsampled' else '01'}",
                        )
                        for name, (trace_id, span_id) in parents.items()
                    ),
                    item(transfer_request(sender, recipient, uuid4().hex), "", traceparent="no trace"),
                )
        assert collector.requests
        assert "eyJ" not in str(collector.requests)  # no token
        spans = {span.parent: span for span in collector.spans if span.kind == "SERVER"}
        assert spans.keys() == {parents["alice"], parents["bob"]}
        assert {span.name for span in spans.values()} == {METHOD[1:]}
        codes = {name: spans[parents[name]].attributes["rpc.response.status_code"] for name in ("alice", "bob")}
        assert codes == {"alice": "OK", "bob": "NOT_FOUND"}
        for name in ("alice", "bob"):
            commits = [span for span in collector.spans if spans[parents[name]].context in span.causes]
            assert {span.name for span in commits} == {"commit"}


class TestClient:
    async def test_concurrent_callers_get_their_own_receipts(self, bank: RunningBank) -> None:
        callers = [f"{uuid4().hex} {n}" for n in range(20)]
        accounts = {name: await bank.open(name, "1000") for name in callers}
        shop = await bank.open("shop", "0")
        forwarded = count_calls(f"/{SERVICE}/ForwardTransfers").get("OK", 0)
        token = bank.keys.service("gateway")
        async with BankClient.connect(
            bank.target, limits=ClientLimits(timeout_seconds=30), gateway_token=lambda: token
        ) as client:

            async def pay(name: str, number: int) -> None:
                amount = rub(f"{number + 1}.{callers.index(name):02}")
                caller = bank.user(name)
                work = asyncio.create_task(caller(client.transfer(accounts[name], shop, amount, str(number))))
                if number % 3 == 0:  # this caller leaves and comes back
                    for _ in range(10 * number + 1):  # it has started
                        await asyncio.sleep(0)
                    work.cancel()
                    await asyncio.wait([work])
                    work = asyncio.create_task(caller(client.transfer(accounts[name], shop, amount, str(number))))
                receipt = await work
                assert (receipt.transfer.sender_id, receipt.transfer.amount) == (accounts[name], amount)
                assert receipt.posting.account_id == accounts[name]

            await asyncio.gather(*(pay(name, number) for number in range(10) for name in callers))
        paid = [1_000 - await bank.balance(accounts[name]) for name in callers]
        assert paid == [Decimal(55) + Decimal(n) / 10 for n in range(len(callers))]
        assert await bank.balance(shop) == sum(paid)
        assert count_calls(f"/{SERVICE}/ForwardTransfers")["OK"] > forwarded
        await assert_ledger_invariants(bank.sql)
