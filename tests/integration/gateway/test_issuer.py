"""Whose tokens are believed is a matter of settings: the built-in issuer's, or another one's by its address."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.responses import JSONResponse

from kit.http.server import http_server
from stack.ports import HOST, free_ports
from tests.conftest import AUDIENCE, USERS, Keys
from tests.integration.bank.harness import run_bank
from tests.integration.gateway.gateway_process import serving
from tests.integration.gateway.websocket_client import opened

THEIRS = "https://elsewhere.test/realms/wallet"
ALGORITHMS: dict[str, tuple[Any, Any]] = {
    "ES256": (ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm),
    "RS256": (rsa.generate_private_key(65537, 2048), jwt.algorithms.RSAAlgorithm),
}


def token(algorithm: str, subject: str, *roles: str, **changed: Any) -> str:
    """As another issuer writes them: with its own algorithm, and roles under a claim of its own."""
    now = int(time.time())
    claims = {
        "iss": THEIRS,
        "sub": subject,
        "aud": [AUDIENCE, "account"],
        "iat": now,
        "exp": now + 600,
        "realm_access": {"roles": ["offline_access", *roles]},
        **changed,
    }
    return jwt.encode(claims, ALGORITHMS[algorithm][0], algorithm, headers={"kid": algorithm})


@asynccontextmanager
async def published() -> AsyncIterator[str]:
    """The address of the other issuer's keys: one of each kind."""
    jwks = [
        {**kind.to_jwk(key.public_key(), as_dict=True), "kid": algorithm, "use": "sig", "alg": algorithm}
        for algorithm, (key, kind) in ALGORITHMS.items()
    ]
    (port,) = free_ports(1)
    async with http_server(JSONResponse({"keys": jwks}), f"{HOST}:{port}", lifespan="off"):
        yield f"http://{HOST}:{port}/certs"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("algorithm", "other"), [("ES256", "RS256"), ("RS256", "ES256")])
async def test_another_issuers_tokens_move_money_and_the_built_in_ones_do_not(
    ledger_url: str, keys: Keys, tmp_path: Path, algorithm: str, other: str
) -> None:
    async with published() as url:
        theirs = {
            "auth_issuer": THEIRS,
            "auth_jwks": url,
            "auth_algorithm": algorithm,
            "auth_roles_claim": "realm_access.roles",
        }
        async with (
            run_bank(keys, tmp_path, ledger_url, **theirs) as bank,
            serving(keys, tmp_path, bank.target, **theirs) as gateway,
            httpx.AsyncClient(base_url=gateway, trust_env=False, timeout=10) as http,
        ):
            account, recipient = await bank.open("alice"), await bank.open("bob")

            async def answer(token: str, key: str) -> int:
                body = {"recipientId": str(recipient), "amount": "1.00"}
                headers = {**bearer(token), "Idempotency-Key": key}
                return (await http.post(f"/accounts/{account}/transfers", json=body, headers=headers)).status_code

            assert await answer(token(algorithm, "alice", "Customer"), "own") == 201
            assert await answer(token(algorithm, "ops", "ADMIN"), "admin") == 201
            assert await answer(token(algorithm, "ops", "operator"), "operator") == 403
            assert await answer(token(algorithm, "alice"), "no role") == 403
            assert await answer(token(algorithm, "alice", roles=["admin"]), "roles elsewhere") == 403
            assert await answer(token(algorithm, "bob", "customer"), "another's") == 404
            assert await answer(token(other, "alice", "customer"), "another algorithm") == 401
            assert await answer(keys.user("alice"), "built in") == 401
            assert await answer(token(algorithm, "alice", "customer", iss=USERS), "in the other's name") == 401
            assert await bank.balance(account) == 998

            published_here = (await http.get("/.well-known/jwks.json")).json()
            assert [key["kid"] for key in published_here["keys"]] == [algorithm]


async def test_while_its_keys_have_never_come_nobody_is_refused_for_good(
    patient_services: str, keys: Keys, tmp_path: Path
) -> None:
    issuer_port, admin_port = free_ports(2)
    nowhere, admin = f"http://{HOST}:{issuer_port}/jwks.json", f"{HOST}:{admin_port}"
    async with (
        serving(keys, tmp_path, patient_services, auth_jwks=nowhere, gateway_admin_listen=admin) as gateway,
        httpx.AsyncClient(base_url=gateway, trust_env=False, timeout=10) as http,
    ):
        known = await http.get("/.well-known/jwks.json")
        asked = await http.get(f"/accounts/{UUID(int=1)}", headers=bearer(keys.user("alice")))
        for answer in (known, asked):
            assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
        # What needs no token needs no keys, whatever comes with it.
        assert (await http.get("/health/live")).status_code == 200
        for port in ("", f"http://{admin}"):
            ready = await http.get(f"{port}/health/ready")
            assert (ready.status_code, ready.json()["checks"]) == (503, {"keys": "Unavailable"})
        assert (await http.get("/docs")).status_code == 200
        async with opened(gateway) as connection:  # told to come again, as it may be a good one
            payload = {"authorization": f"Bearer {keys.user('alice')}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            async with asyncio.timeout(10):
                await connection.wait_closed()
            assert connection.close_code == 1013


async def test_the_keys_that_are_believed_are_handed_on_for_a_minute(
    patient_services: str, keys: Keys, tmp_path: Path
) -> None:
    async with (
        serving(keys, tmp_path, patient_services) as gateway,
        httpx.AsyncClient(base_url=gateway, trust_env=False) as http,
    ):
        for headers in ({}, bearer("whatever this is")):
            answer = await http.get("/.well-known/jwks.json", headers=headers)
            assert answer.json()["keys"][0].keys() == {"kty", "crv", "x", "alg", "use", "kid"}
            assert answer.headers["cache-control"] == "max-age=60"
