"""Customers of a run: created over the API before the load, each with an account and a topped-up balance."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final, Self
from uuid import UUID, uuid4

import httpx
import jwt

from kit.auth.principal import Role
from kit.runtime.backoff import Backoff
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
"""Name of the requests that are sent before and after the load. Reports exclude these requests."""

_MAX_CONCURRENT: Final = 8
_TOKEN_SECONDS: Final = 24 * 3600.0
_RETRY_DELAY_SECONDS: Final = 0.5
_MAX_DELAY_SECONDS: Final = 5.0
_SET_UP_SECONDS: Final = 120.0
"""Longer than the windows of rate limits, because with many customers some logins wait for the next window."""
_TIMEOUT_SECONDS: Final = 10.0
_OPENING_AMOUNT: Final = Decimal("1000.00")
_RETRYABLE: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


class SetUpError(Exception):
    """The run could not start, for example because the system does not respond. The message says what to do."""


class CustomerApi:
    """REST client that creates customers, retries unknown outcomes and reads operations.

    Use as an async context manager. Requests to the ledger are recorded.
    """

    def __init__(self, target: Target, writer: HistoryWriter, *, set_up_seconds: float = _SET_UP_SECONDS) -> None:
        """Args:
        target: system under load.
        writer: writer of the run's history.
        set_up_seconds: time after which the set-up fails, counted from the last successful request of any customer;
            also the time limit of each top-up.
        """
        self._target = target
        self._set_up_seconds = set_up_seconds
        self._progressed_at = time.monotonic()
        self._writer = writer
        trust = ssl.create_default_context()  # SSL_CERT_FILE replaces the system's authorities
        self._http = httpx.AsyncClient(base_url=target.host, timeout=_TIMEOUT_SECONDS, trust_env=False, verify=trust)
        self._limit = asyncio.Semaphore(_MAX_CONCURRENT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def create_customers(self, count: int) -> list[Customer]:
        """Create customers, with an account and 1,000 roubles each.

        Requests that fail for a temporary reason are repeated until no request has succeeded for `set_up_seconds`.

        Raises:
            SetUpError: the system does not respond, refuses a request, or does not complete a top-up in time.
        """
        await self._check_host()
        self._progressed_at = time.monotonic()
        failure = None  # raised outside of `except*`, which wraps errors in a group before Python 3.11.4
        try:
            async with asyncio.TaskGroup() as tasks:
                created = [tasks.create_task(self._create_customer(number)) for number in range(count)]
        except* SetUpError as errors:
            failure = errors.exceptions[0]
        if failure is not None:
            raise failure
        return [task.result() for task in created]

    async def retry_until_final(self, request: LedgerRequest, token: str) -> None:
        """Send a request with the same key until its outcome is known, without a time limit."""
        while True:
            record = await self._send(request, token)
            if record.answer and is_final(record.answer):
                return
            await asyncio.sleep(_RETRY_DELAY_SECONDS)

    async def resolve(self, calls: Sequence[RecordedCall], customers: Sequence[Customer]) -> None:
        """Retry all requests with an unknown outcome, with the same keys, until all outcomes are known."""
        tokens = {customer.principal: customer.token for customer in customers}
        requests = unresolved_requests(calls)
        await asyncio.gather(*(self.retry_until_final(each, tokens[each.key.principal]) for each in requests))

    async def list_operations(self, customer: Customer) -> list[dict[str, Any]]:
        """Return all operations of a customer's account that analytics has stored until now, newest first.

        Raises:
            httpx.HTTPError: the operations cannot be read now.
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

    async def _check_host(self) -> None:
        """Send one request and accept any response, so that a wrong address is reported at once."""
        try:
            await self._http.get("/health/ready")
        except httpx.HTTPError as error:
            raise SetUpError(
                f"no response from {self._target.host} ({describe_error(error)}): start the system, or correct --host"
            ) from None

    async def _create_customer(self, number: int) -> Customer:
        try:
            token = await self._create_token(number)
            claims = jwt.decode(token, options={"verify_signature": False})
            account = await self._post("/accounts", {"currency": "RUB"}, token)
            principal = f"{claims['iss']}|{claims['sub']}"
            body = RequestBody(clearing_account_id("RUB"), UUID(account["id"]), _OPENING_AMOUNT)
            key = IdempotencyKey(principal, "top-up", f"{rest.GOOD}-{uuid4().hex}")
            await self._top_up(LedgerRequest(key, body, None), token)
            return Customer(claims["sub"], principal, token, account["id"])
        except (jwt.PyJWTError, ValueError, LookupError, TypeError, AttributeError):
            raise SetUpError(
                f"{self._target.host} does not respond like the REST API of a wallet: correct --host"
            ) from None

    async def _top_up(self, request: LedgerRequest, token: str) -> None:
        try:
            async with asyncio.timeout(self._set_up_seconds):
                await self.retry_until_final(request, token)
        except TimeoutError:
            raise SetUpError(
                f"an account could not be topped up within {self._set_up_seconds:g} s: see `wallet status` and the log "
                "of the card service"
            ) from None

    async def _create_token(self, number: int) -> str:
        """Sign a token with the key of the stack, if there is one; otherwise register and log in."""
        if signer := self._target.signer:
            return signer.sign(f"load-{uuid4().hex}-{number}", _TOKEN_SECONDS, [Role.CUSTOMER])
        credentials = {"username": f"load-{uuid4().hex[:16]}", "password": uuid4().hex}
        # A conflict in a repeated request is accepted: the first attempt may have registered the name although its
        # response was lost. If it did, the login succeeds.
        await self._post("/auth/register", credentials, accepted_repeat=HTTPStatus.CONFLICT)
        token: str = (await self._post("/auth/login", credentials))["accessToken"]
        return token

    async def _post(
        self, path: str, body: dict[str, Any], token: str = "", *, accepted_repeat: HTTPStatus | None = None
    ) -> dict[str, Any]:
        """Send a POST; repeat it with the same key while it fails for a temporary reason, such as an overload.

        Args:
            path: path of the URL.
            body: JSON body.
            token: access token; empty: none.
            accepted_repeat: status of a repeated request that means that an earlier attempt was successful.

        Raises:
            SetUpError: the request is refused, or no request of the set-up has succeeded for `set_up_seconds`.
        """
        headers = _auth_headers(token) | {"Idempotency-Key": uuid4().hex}
        backoff = Backoff(_RETRY_DELAY_SECONDS, _MAX_DELAY_SECONDS)
        is_repeat = False
        while True:
            delay = backoff.next_delay()
            try:
                async with self._limit:
                    response = await self._http.post(path, json=body, headers=headers)
            except httpx.HTTPError as error:
                problem = f"had no response ({describe_error(error)})"
            else:
                if response.is_success or (is_repeat and response.status_code == accepted_repeat):
                    self._progressed_at = time.monotonic()
                    result: dict[str, Any] = response.json()
                    return result
                problem = f"returned {response.status_code}{_problem_code(response)}"
                if response.status_code not in _RETRYABLE:
                    raise SetUpError(
                        f"POST {self._target.host}{path} {problem}: correct --host, or see the gateway's log"
                    )
                delay = max(delay, _retry_after(response))
            if time.monotonic() + delay > self._progressed_at + self._set_up_seconds:
                raise SetUpError(
                    f"POST {self._target.host}{path} {problem}, "
                    f"and no request of the set-up succeeded for {self._set_up_seconds:g} s: "
                    "wait until the system is ready, or create fewer customers with --customers"
                )
            is_repeat = True
            await asyncio.sleep(delay)

    async def _send(self, request: LedgerRequest, token: str) -> RequestRecord:
        post = rest.post_for(request)
        async with self._limit:
            began = time.monotonic()
            try:
                headers = _auth_headers(token) | {"Idempotency-Key": request.key.key}
                response = await self._http.post(post.path, json=post.body, headers=headers)
                status, body, received = response.status_code, response.json(), response.headers
            except (httpx.HTTPError, ValueError):
                status, body, received = 0, {}, httpx.Headers()
        answer = rest.parse_answer(request, status, body, received)
        record = RequestRecord(
            name=CHECKER, due=began, began=began, ended=time.monotonic(), request=request, answer=answer
        )
        self._writer.write(record)
        return record


def describe_error(error: Exception) -> str:
    """Return the message of an error, or its type if it has none."""
    return str(error) or type(error).__name__


def _problem_code(response: httpx.Response) -> str:
    """Return the code of a problem, with a space before it; an empty text if the response is not a problem."""
    try:
        return f" {response.json()['code']}"
    except (ValueError, LookupError, TypeError):
        return ""


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds in `Retry-After`; 0 without the header, or if it is a date."""
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0


def _auth_headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
