"""The customers of a run: made at its start, by the API, each with an account and some money that they paid in."""

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
from loadtests.history.calls import Body, Call, Key, Wish, is_certain, unknown
from loadtests.history.log import Line, Log
from loadtests.plan import Customer
from loadtests.target import Target
from wallet.accounts import clearing_account_id

CHECKER: Final = "checker"
"""What is asked before and after the load; no report counts it."""

_AT_ONCE: Final = 8
_TOKEN_SECONDS: Final = 24 * 3600.0
_PAUSE_SECONDS: Final = 0.5
_TIMEOUT_SECONDS: Final = 10.0
_MONEY: Final = Decimal("1000.00")


class Api:
    """The REST API, asked by customers. Open inside `async with`; what is asked of the ledger is in the log."""

    def __init__(self, target: Target, log: Log) -> None:
        self._target = target
        self._log = log
        trust = ssl.create_default_context()  # SSL_CERT_FILE names an authority of one's own
        self._http = httpx.AsyncClient(base_url=target.host, timeout=_TIMEOUT_SECONDS, trust_env=False, verify=trust)
        self._limit = asyncio.Semaphore(_AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def customers(self, count: int) -> list[Customer]:
        """So many new ones, with an account and 1,000 roubles each."""
        return await asyncio.gather(*(self._customer(number) for number in range(count)))

    async def insist(self, wish: Wish, token: str) -> None:
        """Asks until the outcome is known; for ever, if it does not become so."""
        while True:
            line = await self._asked(wish, token)
            if line.answer and is_certain(line.answer):
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def resolve(self, asked: Sequence[Call], customers: Sequence[Customer]) -> None:
        """Asks for whatever is unknown, with the same keys, until it is known."""
        tokens = {customer.principal: customer.token for customer in customers}
        await asyncio.gather(*(self.insist(wish, tokens[wish.key.principal]) for wish in unknown(asked)))

    async def operations(self, customer: Customer) -> list[dict[str, Any]]:
        """The whole history of a customer's account, newest first, as far as it is there.

        Raises:
            httpx.HTTPError: it is not to be had now.
        """
        found: list[dict[str, Any]] = []
        while True:
            params = {"limit": 1_000} | ({"after": found[-1]["cursor"]} if found else {})
            path = f"/accounts/{customer.account}/operations"
            async with self._limit:
                answer = await self._http.get(path, params=params, headers=_bearer(customer.token))
            page = answer.raise_for_status().json()
            found += page["operations"]
            if not page["hasOlder"]:
                return found

    async def _customer(self, number: int) -> Customer:
        token = await self._token(number)
        claims = jwt.decode(token, options={"verify_signature": False})
        opened = await self._post("/accounts", {"currency": "RUB"}, token)
        principal = f"{claims['iss']}|{claims['sub']}"
        body = Body(clearing_account_id("RUB"), UUID(opened["id"]), _MONEY)
        await self.insist(Wish(Key(principal, "top-up", f"{rest.GOOD}-{uuid4().hex}"), body, None), token)
        return Customer(claims["sub"], principal, token, opened["id"])

    async def _token(self, number: int) -> str:
        """Signed by the key of the stack, where that is at hand; by signing up and in, elsewhere."""
        if signer := self._target.signer:
            return signer.sign(f"load-{uuid4().hex}-{number}", _TOKEN_SECONDS, [Role.CUSTOMER])
        credentials = {"username": f"load-{uuid4().hex[:16]}", "password": uuid4().hex}
        await self._post("/auth/register", credentials)
        token: str = (await self._post("/auth/login", credentials))["accessToken"]
        return token

    async def _post(self, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        """Until it is done; after 429 when it says."""
        headers = _bearer(token) | {"Idempotency-Key": uuid4().hex}
        while True:
            async with self._limit:
                answer = await self._http.post(path, json=body, headers=headers)
            if "retry-after" not in answer.headers:
                told: dict[str, Any] = answer.raise_for_status().json()
                return told
            await asyncio.sleep(float(answer.headers["retry-after"]))

    async def _asked(self, wish: Wish, token: str) -> Line:
        request = rest.request(wish)
        async with self._limit:
            began = time.monotonic()
            try:
                headers = _bearer(token) | {"Idempotency-Key": wish.key.key}
                answer = await self._http.post(request.path, json=request.body, headers=headers)
                status, told = answer.status_code, answer.json()
            except (httpx.HTTPError, ValueError):
                status, told = 0, {}
        said = rest.answer(wish, status, told)
        line = Line(name=CHECKER, due=began, began=began, ended=time.monotonic(), wish=wish, answer=said)
        self._log.write(line)
        return line


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
