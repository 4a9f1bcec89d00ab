"""Tokens of an external issuer, configured by the URL of its keys."""

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
from tests.integration.gateway.gateway_process import run_gateway
from tests.integration.gateway.websocket_client import open_websocket

ISSUER = "https://elsewhere.test/realms/wallet"
ALGORITHMS: dict[str, tuple[Any, Any]] = {
    "ES256": (ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm),
    "RS256": (rsa.generate_private_key(65537, 2048), jwt.algorithms.RSAAlgorithm),
}


def token(algorithm: str, subject: str, *roles: str, **overrides: Any) -> str:
    """Build a token of the external issuer, with roles in a nested claim."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "aud": [AUDIENCE, "account"],
        "iat": now,
        "exp": now + 600,
        "realm_access": {"roles": ["offline_access", *roles]},
        **overrides,
    }
    return jwt.encode(claims, ALGORITHMS[algorithm][0], algorithm, headers={"kid": algorithm})


@asynccontextmanager
async def serve_jwks() -> AsyncIterator[str]:
    """Serve the issuer's keys, one of each algorithm, and yield their URL."""
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
async def test_tokens_of_the_configured_issuer_are_accepted_and_others_rejected(
    ledger_url: str, keys: Keys, tmp_path: Path, algorithm: str, other: str
) -> None:
    async with serve_jwks() as url:
        issuer_settings = {
            "auth_issuer": ISSUER,
            "auth_jwks": url,
            "auth_algorithm": algorithm,
            "auth_roles_claim": "realm_access.roles",
        }
        async with (
            run_bank(keys, tmp_path, ledger_url, **issuer_settings) as bank,
            run_gateway(keys, tmp_path, bank.target, **issuer_settings) as gateway,
            httpx.AsyncClient(base_url=gateway, trust_env=False, timeout=10) as http,
        ):
            account, recipient = await bank.open("alice"), await bank.open("bob")

            async def transfer_status(token: str, key: str) -> int:
                body = {"recipientId": str(recipient), "amount": "1.00"}
                headers = {**bearer(token), "Idempotency-Key": key}
                return (await http.post(f"/accounts/{account}/transfers", json=body, headers=headers)).status_code

            assert await transfer_status(token(algorithm, "alice", "Customer"), "own") == 201
            assert await transfer_status(token(algorithm, "ops", "ADMIN"), "admin") == 201
            assert await transfer_status(token(algorithm, "ops", "operator"), "operator") == 403
            assert await transfer_status(token(algorithm, "alice"), "no role") == 403
            assert await transfer_status(token(algorithm, "alice", roles=["admin"]), "roles elsewhere") == 403
            assert await transfer_status(token(algorithm, "bob", "customer"), "another's") == 404
            assert await transfer_status(token(other, "alice", "customer"), "another algorithm") == 401
            assert await transfer_status(keys.user("alice"), "built in") == 401
            assert await transfer_status(token(algorithm, "alice", "customer", iss=USERS), "in the other's name") == 401
            assert await bank.balance(account) == 998

            served_keys = (await http.get("/.well-known/jwks.json")).json()
            assert [key["kid"] for key in served_keys["keys"]] == [algorithm]


async def test_requests_get_503_until_the_issuer_keys_are_loaded(slow_target: str, keys: Keys, tmp_path: Path) -> None:
    issuer_port, admin_port = free_ports(2)
    unreachable, admin = f"http://{HOST}:{issuer_port}/jwks.json", f"{HOST}:{admin_port}"
    async with (
        run_gateway(keys, tmp_path, slow_target, auth_jwks=unreachable, gateway_admin_listen=admin) as gateway,
        httpx.AsyncClient(base_url=gateway, trust_env=False, timeout=10) as http,
    ):
        keys_response = await http.get("/.well-known/jwks.json")
        account_response = await http.get(f"/accounts/{UUID(int=1)}", headers=bearer(keys.user("alice")))
        for response in (keys_response, account_response):
            assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
            assert response.headers["retry-after"] == "1"
        # Routes without a token do not need the keys.
        assert (await http.get("/health/live")).status_code == 200
        for port in ("", f"http://{admin}"):
            ready = await http.get(f"{port}/health/ready")
            assert (ready.status_code, ready.json()["checks"]) == (503, {"keys": "Unavailable"})
        assert (await http.get("/docs")).status_code == 200
        async with open_websocket(gateway) as connection:  # 1013: try again later, because the token may be valid
            payload = {"authorization": f"Bearer {keys.user('alice')}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            async with asyncio.timeout(10):
                await connection.wait_closed()
            assert connection.close_code == 1013


async def test_issuer_keys_are_served_with_a_max_age_of_a_minute(slow_target: str, keys: Keys, tmp_path: Path) -> None:
    async with (
        run_gateway(keys, tmp_path, slow_target) as gateway,
        httpx.AsyncClient(base_url=gateway, trust_env=False) as http,
    ):
        for headers in ({}, bearer("not a token")):
            response = await http.get("/.well-known/jwks.json", headers=headers)
            assert response.json()["keys"][0].keys() == {"kty", "crv", "x", "alg", "use", "kid"}
            assert response.headers["cache-control"] == "max-age=60"
