"""Customers of a run: created over the API before the load, each with an account and a topped-up balance."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Self
from uuid import UUID, uuid4

import httpx
import jwt

from kit.auth.principal import Role
from loadtests import rest
from loadtests.history.calls import (
    IdempotencyKey,
    LedgerRequest,
    RecordedCall,
    RequestBody,
    is_final,
    unresolved_requests,
)
from loadtests.history.storage import HistoryWriter, RequestRecord
from loadtests.plan import Customer
from loadtests.target import Target
from wallet.accounts import clearing_account_id

CHECKER: Final = "checker"
"""Name of requests before and after the load. Reports exclude them."""

_MAX_CONCURRENT: Final = 8
_TOKEN_SECONDS: Final = 24 * 3600.0
_RETRY_DELAY_SECONDS: Final = 0.5
_TIMEOUT_SECONDS: Final = 10.0
_OPENING_AMOUNT: Final = Decimal("1000.00")


class CustomerApi:
    """REST client that creates customers, retries unknown outcomes and reads operations.

    Use as an async context manager. Requests to the ledger are recorded.
    """

    def __init__(self, target: Target, writer: HistoryWriter) -> None:
        self._target = target
        self._writer = writer
        trust = ssl.create_default_context()  # the variable SSL_CERT_FILE selects another authority
        self._http = httpx.AsyncClient(base_url=target.host, timeout=_TIMEOUT_SECONDS, trust_env=False, verify=trust)
        self._limit = asyncio.Semaphore(_MAX_CONCURRENT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def create_customers(self, count: int) -> list[Customer]:
        """Create customers, with an account and 1,000 roubles each."""
        return await asyncio.gather(*(self._create_customer(number) for number in range(count)))

    async def retry_until_final(self, request: LedgerRequest, token: str) -> None:
        """Send a request with the same key until its outcome is known, without a time limit."""
        while True:
            record = await self._send(request, token)
            if record.answer and is_final(record.answer):
                return
            await asyncio.sleep(_RETRY_DELAY_SECONDS)

    async def resolve(self, calls: Sequence[RecordedCall], customers: Sequence[Customer]) -> None:
        """Retry all requests with an unknown outcome, with the same keys, until it is known."""
        tokens = {customer.principal: customer.token for customer in customers}
        requests = unresolved_requests(calls)
        await asyncio.gather(*(self.retry_until_final(each, tokens[each.key.principal]) for each in requests))

    async def list_operations(self, customer: Customer) -> list[dict[str, Any]]:
        """Return all operations of a customer's account that the history has so far, newest first.

        Raises:
            httpx.HTTPError: the history is unavailable.
        """
        operations: list[dict[str, Any]] = []
        while True:
            params = {"limit": 1_000} | ({"after": operations[-1]["cursor"]} if operations else {})
            path = f"/accounts/{customer.account}/operations"
            async with self._limit:
                response = await self._http.get(path, params=params, headers=_auth_headers(customer.token))
            page = response.raise_for_status().json()
            operations += page["operations"]
            if not page["hasOlder"]:
                return operations

    async def _create_customer(self, number: int) -> Customer:
        token = await self._create_token(number)
        claims = jwt.decode(token, options={"verify_signature": False})
        account = await self._post("/accounts", {"currency": "RUB"}, token)
        principal = f"{claims['iss']}|{claims['sub']}"
        body = RequestBody(clearing_account_id("RUB"), UUID(account["id"]), _OPENING_AMOUNT)
        key = IdempotencyKey(principal, "top-up", f"{rest.GOOD}-{uuid4().hex}")
        await self.retry_until_final(LedgerRequest(key, body, None), token)
        return Customer(claims["sub"], principal, token, account["id"])

    async def _create_token(self, number: int) -> str:
        """Sign a token with the key of the stack, if there is one; otherwise register and log in."""
        if signer := self._target.signer:
            return signer.sign(f"load-{uuid4().hex}-{number}", _TOKEN_SECONDS, [Role.CUSTOMER])
        credentials = {"username": f"load-{uuid4().hex[:16]}", "password": uuid4().hex}
        await self._post("/auth/register", credentials)
        token: str = (await self._post("/auth/login", credentials))["accessToken"]
        return token

    async def _post(self, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        """Send a POST, and retry as long as the answer has `Retry-After`."""
        headers = _auth_headers(token) | {"Idempotency-Key": uuid4().hex}
        while True:
            async with self._limit:
                response = await self._http.post(path, json=body, headers=headers)
            if "retry-after" not in response.headers:
                result: dict[str, Any] = response.raise_for_status().json()
                return result
            await asyncio.sleep(float(response.headers["retry-after"]))

    async def _send(self, request: LedgerRequest, token: str) -> RequestRecord:
        post = rest.post_for(request)
        async with self._limit:
            began = time.monotonic()
            try:
                headers = _auth_headers(token) | {"Idempotency-Key": request.key.key}
                response = await self._http.post(post.path, json=post.body, headers=headers)
                status, body = response.status_code, response.json()
            except (httpx.HTTPError, ValueError):
                status, body = 0, {}
        answer = rest.parse_answer(request, status, body)
        record = RequestRecord(
            name=CHECKER, due=began, began=began, ended=time.monotonic(), request=request, answer=answer
        )
        self._writer.write(record)
        return record


def _auth_headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
