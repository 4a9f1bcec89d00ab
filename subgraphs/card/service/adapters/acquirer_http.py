"""HTTP client of the card acquirer (`openapi/acquirer.yaml`)."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import certifi
import orjson
import structlog
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, SecretStr, ValidationError
from yarl import URL

from kit.rpc import request_context
from kit.rpc.circuit_breaker import CircuitBreaker, CircuitOpenError
from kit.runtime.backoff import Backoff, retry
from kit.telemetry import tracing
from openapi import acquirer as messages
from subgraphs.card.service import metrics
from subgraphs.card.service.adapters.acquirer import current_customer
from subgraphs.card.service.domain.cards import Brand, CardDetails, CardToken
from subgraphs.card.service.domain.payment import NoPayment, Payment, PaymentStatus, Refusal
from wallet.errors import Unavailable
from wallet.money import Money, MoneyError

log = structlog.get_logger(__name__)

_DEPENDENCY: Final = "the card acquirer"  # in error messages
_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 0.5
_MAX_CONNECTIONS: Final = 100
_KEEPALIVE_SECONDS: Final = 5.0

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Time-outs, retries and circuit breaker of calls to the acquirer.

    Attributes:
        timeout_seconds: time-out of one attempt, until its response is complete.
        attempts: maximum attempts of a call.
        budget_seconds: maximum time between the start of the first attempt and the start of the last one.
        circuit_failures: the circuit opens for all customers after attempts for this number of customers have failed,
            and for one customer after this number of attempts for the customer has failed.
        circuit_seconds: time until an open circuit lets a probe through. Until then, calls fail at once.
    """

    timeout_seconds: float = 3.0
    attempts: int = 3
    budget_seconds: float = 4.0
    circuit_failures: int = 5
    circuit_seconds: float = 5.0


class HttpAcquirer:
    """`Acquirer` over HTTP. All calls are idempotent and retried briefly. They fail fast while the circuit is open."""

    def __init__(self, http: aiohttp.ClientSession, url: str, policy: RetryPolicy) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._policy = policy
        self._circuit = CircuitBreaker(
            failures=policy.circuit_failures, open_seconds=policy.circuit_seconds, on_change=_record_circuit_state
        )

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, api_key: SecretStr, policy: RetryPolicy = RetryPolicy(), tls: ssl.SSLContext | None = None
    ) -> AsyncIterator["HttpAcquirer"]:
        """Yield a client of the acquirer at a base URL. The client connects at the first call.

        It never follows redirects, which could send card data elsewhere, and uses no proxy of the environment.

        Args:
            url: base URL.
            api_key: API key of the merchant.
            policy: time-outs and retries.
            tls: TLS context; None: that of `certifi`'s public authorities.
        """
        connector = aiohttp.TCPConnector(
            limit=_MAX_CONNECTIONS,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            ssl=tls or ssl.create_default_context(cafile=certifi.where()),
        )
        async with aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {api_key.get_secret_value()}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # none: `_call_once` bounds each attempt as a whole
        ) as http:
            yield cls(http, url, policy)

    async def tokenize(self, card: CardDetails) -> CardToken | Refusal:  # noqa: D102  documented in `Acquirer`
        body = {
            "number": card.number,
            "expiryMonth": card.expiry_month,
            "expiryYear": card.expiry_year,
            "cvv": card.cvv,
        }
        return await self._call("POST", "/v1/tokens", _parse_token, json=body)

    async def authorize(self, key: str, card: CardToken, amount: Money, reference: str) -> Payment | Refusal:  # noqa: D102
        body = {
            "token": card.token,
            "amount": str(amount),
            "currency": amount.currency,
            "reference": reference,
        }
        return await self._call("POST", "/v1/payments", _parse_payment, json=body, key=key)

    async def find_payment(self, key: str) -> Payment | NoPayment:  # noqa: D102
        payments = await self._get_payments({"idempotencyKey": key})
        return payments[0] if payments else NoPayment()

    async def cancel(self, key: str) -> Payment | NoPayment | Refusal:  # noqa: D102
        return await self._call("POST", "/v1/cancellations", _parse_cancellation, json={"idempotencyKey": key})

    async def capture(self, payment_id: str, key: str) -> Payment | Refusal:  # noqa: D102
        return await self._call("POST", "/v1/payments/{id}/capture", _parse_payment, key=key, payment_id=payment_id)

    async def void(self, payment_id: str, key: str) -> Payment | Refusal:  # noqa: D102
        return await self._call("POST", "/v1/payments/{id}/void", _parse_payment, key=key, payment_id=payment_id)

    async def refund(self, payment_id: str, key: str) -> Payment | Refusal:  # noqa: D102
        return await self._call("POST", "/v1/payments/{id}/refund", _parse_payment, key=key, payment_id=payment_id)

    async def list_payments(self, after: str | None, limit: int) -> list[Payment]:  # noqa: D102
        return await self._get_payments({"limit": str(limit)} | ({} if after is None else {"after": after}))

    async def _get_payments(self, parameters: Mapping[str, str]) -> list[Payment]:
        payments = await self._call("GET", "/v1/payments", _parse_payments, params=parameters)
        if isinstance(payments, Refusal):  # the acquirer's API defines no refusal of a look-up
            log.error("acquirer refused a look-up", code=payments.code)
            raise Unavailable(_DEPENDENCY)
        return payments

    async def _call(
        self,
        method: str,
        path: str,
        parse: Callable[[bytes], Parsed],
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
        key: str | None = None,
        payment_id: str = "",
    ) -> Parsed | Refusal:
        """Call the acquirer and return the parsed response, or its refusal.

        Args:
            method: HTTP method.
            path: path of the resource; `{id}` is replaced by `payment_id`.
            parse: parses the body of a successful response.
            json: body of the request.
            params: query parameters.
            key: idempotency key.
            payment_id: id of the payment.

        Raises:
            Unavailable: the outcome is unknown, or the call was not made.
        """
        location = path.format(id=quote(payment_id, safe=""))
        query = "" if params is None else f"?{urlencode(params)}"
        headers = {} if key is None else {"Idempotency-Key": key}
        body = None
        if json is not None:
            headers["Content-Type"] = "application/json"
            body = orjson.dumps(json)
        request = _Request(method, URL(f"{self._url}{location}{query}", encoded=True), headers, body)
        attributes = {"http.request.method": method, "url.template": path}
        with tracing.start_span(f"{method} {path}", request_context.current_trace(), SpanKind.CLIENT, attributes):
            try:
                return await retry(
                    lambda: self._call_once(request, parse),
                    on=(_UnclearResponseError, aiohttp.ClientError),
                    attempts=self._policy.attempts,
                    budget_seconds=self._policy.budget_seconds,
                    backoff=Backoff(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS),
                )
            except (_UnclearResponseError, aiohttp.ClientError, CircuitOpenError) as error:
                reason = f"{type(error).__name__}: {error}"
                log.warning("acquirer call failed", call=f"{method} {location}", error=reason)
                raise Unavailable(_DEPENDENCY) from None

    async def _call_once(self, request: "_Request", parse: Callable[[bytes], Parsed]) -> Parsed | Refusal:
        with self._circuit.guard(current_customer.get()):
            try:
                async with asyncio.timeout(self._policy.timeout_seconds):
                    status, content = await self._send(request)
            except TimeoutError:
                raise _UnclearResponseError("time-out") from None
            try:
                if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                    return parse(content)
                error = messages.Error.model_validate_json(content)
                payment = None if error.payment is None else _payment_from_message(error.payment)
            except (ValidationError, MoneyError):
                raise _UnclearResponseError(f"{status} with a body that violates the contract") from None
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise _UnclearResponseError(f"{status} {error.code}")
        match error.code:
            case messages.Code.key_in_use:
                raise _UnclearResponseError(error.code)
            case messages.Code.unauthorized:
                log.error("acquirer rejected the API key")
                raise Unavailable(_DEPENDENCY)
        return Refusal(error.code, payment)

    async def _send(self, request: "_Request") -> tuple[int, bytes]:
        """Send the request, and return the status and the body of the response."""
        async with self._http.request(
            request.method, request.url, headers=request.headers, data=request.body, allow_redirects=False
        ) as response:
            return response.status, await response.read()


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes | None


class _UnclearResponseError(Exception):
    """Response that leaves the outcome unknown. The same request is safe to repeat."""


class _Payments(BaseModel):
    payments: list[messages.Payment]


class _Cancellation(BaseModel):
    payment: messages.Payment | None


def _record_circuit_state(state: str) -> None:
    log.warning("acquirer circuit changed", state=state)
    metrics.CIRCUIT.state(state)


def _parse_token(content: bytes) -> CardToken:
    message = messages.Token.model_validate_json(content)
    return CardToken(message.token, Brand(message.brand), message.last_four)


def _parse_payment(content: bytes) -> Payment:
    return _payment_from_message(messages.Payment.model_validate_json(content))


def _parse_payments(content: bytes) -> list[Payment]:
    return [_payment_from_message(payment) for payment in _Payments.model_validate_json(content).payments]


def _parse_cancellation(content: bytes) -> Payment | NoPayment:
    payment = _Cancellation.model_validate_json(content).payment
    return NoPayment() if payment is None else _payment_from_message(payment)


def _payment_from_message(message: messages.Payment) -> Payment:
    return Payment(
        message.id,
        message.idempotency_key,
        PaymentStatus(message.status),
        Money.parse(message.amount, message.currency),
        Money.parse(message.captured, message.currency),
        Money.parse(message.refunded, message.currency),
        message.decline_code,
    )
