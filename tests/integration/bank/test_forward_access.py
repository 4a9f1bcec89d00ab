"""Callers of forwarded transfers: each item is verified and allowed as a call of its own."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from uuid import uuid4

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.requests import Request
from starlette.responses import Response

from kit.auth import keys as key_sets
from kit.auth import principal
from kit.auth.jwk import public_jwk
from kit.auth.principal import MAX_TOKEN_BYTES, Principal, Role
from kit.auth.tokens import TokenSigner
from kit.http.server import http_server
from kit.rpc.request_context import current_request
from protos.wallet.bank.v1 import bank_pb2
from stack.ports import HOST, free_ports
from subgraphs.bank.service.api import forwarding
from subgraphs.bank.service.api.converters import command_from_proto
from tests.conftest import AUDIENCE, USERS, Keys
from tests.forwarded import (
    Result,
    assert_items_are_decided_for_their_own_callers,
    collect,
    item,
    outcome,
    transfer_request,
)
from tests.integration.bank.forwarding import error, forward, open_call
from tests.integration.bank.harness import Caller, RunningBank, rub, run_bank
from wallet.errors import DeadlineExceeded, TokenTooLong, Unauthenticated, WalletError


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
