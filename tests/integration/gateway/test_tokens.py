"""Tokens at the limits of size and content, over each transport."""

import json
from uuid import uuid4

import grpc
import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from kit.auth.jwk import public_jwk
from kit.auth.principal import MAX_TOKEN_BYTES
from kit.rpc.status import error_from_rpc
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from tests.conftest import AUDIENCE, USERS, Keys
from tests.integration.gateway.fake_services import ACCOUNT
from tests.integration.gateway.slow_services import SlowServices
from wallet.errors import TokenTooLong

LIMIT = f"at most {MAX_TOKEN_BYTES} bytes"


def sign(keys: Keys, **claims: object) -> str:
    """Return a valid token of alice with further claims."""
    private = keys.private(USERS)
    standard = {"iss": USERS, "sub": "alice", "aud": AUDIENCE, "iat": 0, "exp": 2**40, "roles": ["customer"]}
    payload = json.dumps({**standard, **claims}).encode()
    return jwt.PyJWS().encode(payload, private, "EdDSA", {"kid": public_jwk(private.public_key())["kid"]})


def sign_with_length(keys: Keys, length: int) -> str:
    """Return a valid token of this length, or a few bytes less."""
    return sign(keys, groups="x" * ((length - len(sign(keys, groups=""))) * 3 // 4 - 2))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "x" * 512}


@pytest.mark.parametrize("repetition", range(5))
async def test_longest_token_always_reaches_the_services(
    slow_services: SlowServices, url: str, keys: Keys, repetition: int
) -> None:
    """Above a soft limit, gRPC refuses calls at random, so one call would not be enough."""
    slow_services.proceed.set()
    token = sign_with_length(keys, MAX_TOKEN_BYTES)
    async with httpx.AsyncClient(base_url=url, headers=bearer(token), trust_env=False) as http:
        responses = [await http.get(f"/accounts/{ACCOUNT}/operations") for _ in range(10)]
    assert {each.status_code for each in responses} == {200}, repetition


@pytest.mark.parametrize("length", [MAX_TOKEN_BYTES + 100, 14_500, 20_000])
class TestLongToken:
    async def test_long_token_is_refused_with_431_and_the_limit(self, url: str, keys: Keys, length: int) -> None:
        async with httpx.AsyncClient(base_url=url, headers=bearer(sign_with_length(keys, length))) as http:
            response = await http.get(f"/accounts/{ACCOUNT}")
            assert (response.status_code, response.json()["code"]) == (431, "TOKEN_TOO_LONG")
            assert LIMIT in response.json()["detail"]
            graph = await http.post("/graphql", json={"query": "{ __typename }"})
            (error,) = graph.json()["errors"]
            assert (graph.status_code, error["extensions"]["code"]) == (431, "TOKEN_TOO_LONG")
            assert LIMIT in error["message"]

    async def test_long_token_closes_a_websocket_with_the_limit(self, url: str, keys: Keys, length: int) -> None:
        address = f"{url.replace('http', 'ws', 1)}/graphql"
        async with connect(address, subprotocols=["graphql-transport-ws"], proxy=None) as connection:  # type: ignore[list-item]
            payload = {"authorization": f"Bearer {sign_with_length(keys, length)}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4403
        assert LIMIT in closed.value.rcvd.reason


async def test_long_token_is_refused_by_the_services(slow_target: str, slow_services: SlowServices, keys: Keys) -> None:
    metadata = (("authorization", f"Bearer {sign_with_length(keys, 10_000)}"),)
    async with grpc.aio.insecure_channel(slow_target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bank_pb2_grpc.BankServiceStub(channel).BatchGetAccounts(
                bank_pb2.BatchGetAccountsRequest(ids=[str(uuid4())]), metadata=metadata
            )
    assert error_from_rpc(refused.value, "the bank") == TokenTooLong(str(MAX_TOKEN_BYTES))
    assert slow_services.started.empty()


@pytest.mark.parametrize("subject", ["a\x00b", "a\nb", "\u202eb", "\ud800", "x" * 256, "", 5, None, ["alice"]])
async def test_subject_that_cannot_be_stored_is_refused_with_401(url: str, keys: Keys, subject: object) -> None:
    async with httpx.AsyncClient(base_url=url, headers=bearer(sign(keys, sub=subject))) as http:
        response = await http.get(f"/accounts/{ACCOUNT}")
    assert (response.status_code, response.json()["code"]) == (401, "UNAUTHENTICATED")
