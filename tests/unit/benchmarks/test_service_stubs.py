"""Stubs of the services behind the gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks import service_stubs
from benchmarks.accounts import account_id
from benchmarks.environment import AUDIENCE, ISSUER
from kit.auth.principal import Role
from kit.auth.tokens import TokenSigner
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from provisioning.keys import ensure_key_pair
from tests.forwarded import collect, item, outcome, transfer_request


@asynccontextmanager
async def serve_stub(users: Path | None) -> AsyncIterator["bank_pb2_grpc.BankServiceAsyncStub"]:
    handlers = service_stubs._StubHandlers(service_stubs._verifier(users) if users else None)
    server = grpc.aio.server(handlers=[handlers])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield bank_pb2_grpc.BankServiceStub(channel)
    await server.stop(None)


async def test_stub_verifies_the_token_of_each_forwarded_transfer(tmp_path: Path) -> None:
    keys = ensure_key_pair(tmp_path, "people")
    signer = TokenSigner.from_file(ISSUER, keys.private, AUDIENCE)
    forger = TokenSigner(ISSUER, Ed25519PrivateKey.generate(), AUDIENCE)
    tokens = [
        signer.sign("alice", 600, [Role.CUSTOMER]),
        forger.sign("alice", 600, [Role.CUSTOMER]),
        "",
        signer.sign("bob", -60, [Role.CUSTOMER]),
        signer.sign("bob", 600, [Role.CUSTOMER]),
    ]
    requests = [transfer_request(account_id(n), account_id(n + 1), str(n), n + 1) for n in range(len(tokens))]
    request = bank_pb2.ForwardTransfersRequest(items=map(item, requests, tokens))
    async with serve_stub(keys.public) as stub:
        results = await collect(stub.ForwardTransfers(request), len(tokens))
    assert [outcome(result) for result in results] == ["ok", "401", "401", "401", "ok"]
    for index in (0, 4):
        made, sent = results[index].value.transfer, requests[index]
        assert (made.sender_id, made.recipient_id, made.amount) == (sent.sender_id, sent.recipient_id, sent.amount)


async def test_stub_without_keys_is_like_a_bank_of_an_older_release() -> None:
    async with serve_stub(None) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(stub.ForwardTransfers(bank_pb2.ForwardTransfersRequest()), 0)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
