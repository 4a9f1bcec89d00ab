"""Transfers that the gateway forwards for several callers: each is verified and executed as a call of its own."""

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID, uuid4

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import REGISTRY
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs

from kit.auth import keys as key_sets
from kit.auth import principal
from kit.auth.jwk import public_jwk
from kit.auth.principal import MAX_TOKEN_BYTES, Principal, Role
from kit.auth.tokens import TokenSigner
from kit.http.server import http_server
from kit.rpc import server
from kit.rpc.channel import ClientLimits
from kit.rpc.request_context import current_request
from kit.rpc.status import error_from_status
from kit.runtime.settings import TracingSettings
from kit.telemetry import tracing
from protos.wallet.bank.v1 import bank_pb2
from stack.ports import HOST, free_ports
from subgraphs.bank.client import SERVICE, BankClient, TransferRequest
from subgraphs.bank.service.api import forwarding
from subgraphs.bank.service.api.converters import command_from_proto
from subgraphs.bank.service.application import group_commit
from tests.collector import run_collector
from tests.conftest import AUDIENCE, USERS, Keys
from tests.forwarded import (
    Item,
    Result,
    assert_items_are_decided_for_their_own_callers,
    collect,
    item,
    outcome,
    transfer_request,
)
from tests.integration.bank.harness import (
    Caller,
    RunningBank,
    assert_ledger_invariants,
    find_lock_waiter,
    rub,
    run_bank,
)
from tests.waiting import until
from wallet.errors import (
    AccountNotFound,
    DeadlineExceeded,
    IdempotencyConflict,
    InsufficientFunds,
    InternalError,
    InvalidInput,
    ResourceExhausted,
    TokenTooLong,
    Unauthenticated,
    WalletError,
)

METHOD: Final = f"/{SERVICE}/TransferMoney"


def open_call(bank: RunningBank, *items: Item) -> Any:
    """Start a call with these items and the gateway's token."""
    request = bank_pb2.ForwardTransfersRequest(items=items)
    return bank.stub.ForwardTransfers(request, metadata=bank.service("gateway").metadata, timeout=30)


async def forward(bank: RunningBank, *items: Item) -> list[Result]:
    """Forward the items; return their results in order."""
    return await collect(open_call(bank, *items), len(items))


def error(result: Result) -> WalletError:
    assert result.HasField("error"), result
    return error_from_status(result.error)


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


class Access:
    """Callers of an account, with the expected outcome of a transfer from it."""

    EXPECTED: Final = {
        "owner": "ok",
        "another": "404",
        "operator": "403",
        "admin": "ok",
        "nobody": "403",
        "card": "403",
        "gateway": "403",
        "anonymous": "401",
        "garbage": "401",
        "expired": "401",
        "another key": "401",
        "with a scheme": "401",
        "too long": "401",
    }

    @classmethod
    def tokens(cls, keys: Keys) -> dict[str, str]:
        forger = TokenSigner(USERS, Ed25519PrivateKey.generate(), AUDIENCE)
        return {
            "owner": keys.user("alice"),
            "another": keys.user("bob"),
            "operator": keys.user("operator", Role.OPERATOR),
            "admin": keys.user("admin", Role.ADMIN),
            "nobody": keys.signers[USERS].sign("nobody", 600),
            "card": keys.service("card"),
            "gateway": keys.service("gateway"),
            "anonymous": "",
            "garbage": "x",
            "expired": keys.user("alice", lifetime_seconds=-60),
            "another key": forger.sign("alice", 600, [Role.CUSTOMER]),
            "with a scheme": f"Bearer {keys.user('alice')}",
            "too long": "x" * (MAX_TOKEN_BYTES + 1),
        }


async def assert_access(bank: RunningBank) -> None:
    sender, recipient = await bank.open("alice"), await bank.open("carol")
    await assert_items_are_decided_for_their_own_callers(
        bank.stub,
        bank.service("gateway").metadata,
        lambda key: transfer_request(sender, recipient, key),
        Access.tokens(bank.keys),
        Access.EXPECTED,
    )
    assert await bank.balance(sender) == 998  # the transfers of the owner and of the admin


def decide_for_the_previous_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    callers: list[Principal] = []
    start = forwarding.Forwarding._start

    def start_for_the_previous_caller(self: Any, call: Any, caller: Principal) -> Any:
        callers.append(caller)
        return start(self, call, callers[-2:][0])

    monkeypatch.setattr(forwarding.Forwarding, "_start", start_for_the_previous_caller)


def decide_for_the_first_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    callers: list[Principal] = []
    start = forwarding.Forwarding._start

    def start_for_the_first_caller(self: Any, call: Any, caller: Principal) -> Any:
        callers.append(caller)
        return start(self, call, callers[0])

    monkeypatch.setattr(forwarding.Forwarding, "_start", start_for_the_first_caller)


def let_the_envelope_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = forwarding.Forwarding._begin

    def begin_with_a_token(self: Any, call: Any) -> None:
        envelope = current_request.get().token
        call.token = call.token or envelope
        begin(self, call)

    monkeypatch.setattr(forwarding.Forwarding, "_begin", begin_with_a_token)


def check_no_role(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Any, call: Any, caller: Principal) -> Any:
        call.command = command_from_proto(caller, call.request)
        return self._bank.start_transfer(call.command, call.deadline)

    monkeypatch.setattr(forwarding.Forwarding, "_start", start)


def swap_results(monkeypatch: pytest.MonkeyPatch) -> None:
    create = forwarding._Call.__init__

    def create_with_the_index_of_a_neighbour(self: Any, calls: Any, index: int, *more: Any) -> None:
        create(self, calls, index ^ 1 if index ^ 1 < calls.unanswered else index, *more)

    monkeypatch.setattr(forwarding._Call, "__init__", create_with_the_index_of_a_neighbour)


class TestAccess:
    async def test_each_item_is_decided_for_its_own_caller(self, bank: RunningBank) -> None:
        await assert_access(bank)

    @pytest.mark.parametrize(
        "plant",
        [
            decide_for_the_previous_caller,
            decide_for_the_first_caller,
            let_the_envelope_stand_in,
            check_no_role,
            swap_results,
        ],
    )
    async def test_check_of_access_notices_a_planted_fault(
        self, bank: RunningBank, monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
    ) -> None:
        plant(monkeypatch)
        with pytest.raises(AssertionError):
            await assert_access(bank)

    @pytest.mark.parametrize("caller", ["alice", "operator", "admin", "card", "analytics"])
    async def test_only_the_gateway_may_forward(self, bank: RunningBank, caller: str) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        roles = {"operator": (Role.OPERATOR,), "admin": (Role.ADMIN,)}.get(caller, ())
        forwarder = bank.service(caller) if caller in {"card", "analytics"} else bank.user(caller, *roles)
        request = bank_pb2.ForwardTransfersRequest(
            items=[item(transfer_request(sender, recipient, uuid4().hex), bank.keys.user("alice"))]
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(bank.stub.ForwardTransfers(request, metadata=forwarder.metadata), 1)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(bank.stub.ForwardTransfers(request), 1)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert (await bank.row(sender))["version"] == 0

    async def test_refusals_have_the_errors_of_transfer_money(self, bank: RunningBank) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        tokens = Access.tokens(bank.keys)
        for caller in tokens:
            request = transfer_request(sender, recipient, uuid4().hex)
            (result,) = await forward(bank, item(request, tokens[caller]))
            if caller in {"owner", "admin"}:
                continue
            alone = Caller(tokens[caller])
            if caller in {"anonymous", "with a scheme"}:  # a call has no such tokens: the scheme is part of a call
                assert isinstance(error(result), Unauthenticated)
            elif caller == "too long":  # a call's metadata has no room for it
                assert error(result) == TokenTooLong(str(MAX_TOKEN_BYTES))
            else:
                with pytest.raises(WalletError) as caught:
                    await alone(bank.client.transfer(sender, recipient, rub("1"), request.idempotency_key))
                assert (type(caught.value), caught.value.message) == (type(error(result)), error(result).message)


class HeldIssuer:
    """Issuer whose keys are at a URL. Each request after the first one waits for the test.

    Attributes:
        keys: the key set that the issuer publishes.
        requested: set when a request waits.
        proceed: set by the test.
    """

    def __init__(self, keys: list[dict[str, str]]) -> None:
        self.keys = keys
        self.requested = asyncio.Event()
        self.proceed = asyncio.Event()
        self._has_answered = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        if self._has_answered:
            self.requested.set()
            await self.proceed.wait()
        self._has_answered = True
        await Response(json.dumps({"keys": self.keys}), media_type="application/json")(request.scope, receive, send)


class TestVerification:
    async def test_token_whose_key_must_be_fetched_delays_no_other_item(
        self, ledger_url: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_sets, "_MISS_INTERVAL_SECONDS", 0)
        monkeypatch.setattr(key_sets, "_CALLER_TIMEOUT_SECONDS", 30)
        monkeypatch.setattr(key_sets, "_URL_TIMEOUT_SECONDS", 30)
        issuer = HeldIssuer(json.loads(keys.jwks(USERS))["keys"])
        target = f"{HOST}:{free_ports(1)[0]}"
        new_key, unknown_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        async with (
            http_server(issuer, target, lifespan="off"),
            run_bank(keys, tmp_path, ledger_url, auth_jwks=f"http://{target}/keys") as bank,
        ):
            sender, recipient = await bank.open("alice"), await bank.open("bob")
            tokens = [
                TokenSigner(USERS, new_key, AUDIENCE).sign("alice", 600, [Role.CUSTOMER]),
                TokenSigner(USERS, unknown_key, AUDIENCE).sign("alice", 600, [Role.CUSTOMER]),
                keys.user("alice"),
                keys.user("bob"),
                "",
            ]
            call = open_call(
                bank,
                *(item(transfer_request(sender, recipient, str(n)), token) for n, token in enumerate(tokens)),
            )
            responses, results = aiter(call), list[Result]()
            while len(results) < 3:
                results += (await anext(responses)).results
            assert {result.index: outcome(result) for result in results} == {2: "ok", 3: "404", 4: "401"}
            await issuer.requested.wait()
            # A later call, whose tokens are all known, does not wait either.
            assert outcome((await forward(bank, item(transfer_request(sender, recipient, "5"), tokens[2])))[0]) == "ok"
            issuer.keys = [*issuer.keys, public_jwk(new_key.public_key())]
            issuer.proceed.set()
            late = [result async for response in responses for result in response.results]
            assert {result.index: outcome(result) for result in late} == {0: "ok", 1: "401"}

    async def test_timeout_of_an_item_includes_its_verification(
        self, ledger_url: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_sets, "_MISS_INTERVAL_SECONDS", 0)
        monkeypatch.setattr(key_sets, "_CALLER_TIMEOUT_SECONDS", 30)
        monkeypatch.setattr(key_sets, "_URL_TIMEOUT_SECONDS", 30)
        issuer = HeldIssuer(json.loads(keys.jwks(USERS))["keys"])
        target = f"{HOST}:{free_ports(1)[0]}"
        forger = TokenSigner(USERS, Ed25519PrivateKey.generate(), AUDIENCE)
        async with (
            http_server(issuer, target, lifespan="off"),
            run_bank(keys, tmp_path, ledger_url, auth_jwks=f"http://{target}/keys") as bank,
        ):
            request = transfer_request(await bank.open("alice"), await bank.open("bob"), "k")
            (result,) = await forward(bank, item(request, forger.sign("alice", 600, [Role.CUSTOMER]), timeout_ms=50))
            assert isinstance(error(result), DeadlineExceeded)
            assert "with the same idempotency key" in error(result).message
            issuer.proceed.set()

    async def test_token_that_expires_is_refused_although_it_was_verified_before(
        self, bank: RunningBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sender, recipient = await bank.open("alice"), await bank.open("bob")
        token = bank.keys.user("alice", lifetime_seconds=600)
        envelope = Caller(bank.keys.signers["gateway"].sign("gateway", 6_000)).metadata
        results = []
        for _ in range(2):
            request = bank_pb2.ForwardTransfersRequest(
                items=[item(transfer_request(sender, recipient, uuid4().hex), token)]
            )
            results += await collect(bank.stub.ForwardTransfers(request, metadata=envelope), 1)
            later = time.time() + 606  # five seconds are tolerated
            monkeypatch.setattr(principal, "time", SimpleNamespace(time=lambda: later))  # noqa: B023  called before
        assert outcome(results[0]) == "ok"
        assert error(results[1]) == Unauthenticated.for_token("the token has expired; get a new one")


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
            await anext(responses)  # the bank has all calls
        results = [result async for response in responses for result in response.results]
        for each in bulk:
            await each
        # Two batches may have been taken before the items came, one of which waited for the held one.
        assert max(result.value.sender_version for result in results) < 1 + 3 * 10


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
