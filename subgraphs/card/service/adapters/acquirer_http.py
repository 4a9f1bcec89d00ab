"""The card acquirer over HTTP (`openapi/acquirer.yaml`)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import quote

import httpx
import structlog
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, SecretStr, ValidationError

from kit.rpc import request_context
from kit.rpc.circuit_breaker import CircuitBreaker, CircuitOpenError
from kit.runtime.backoff import Backoff, retry
from kit.telemetry import tracing
from openapi import acquirer as messages
from subgraphs.card.service import metrics
from subgraphs.card.service.domain.cards import CardDetails
from subgraphs.card.service.domain.top_up import Brand, NoPayment, Payment, PaymentStatus, Refusal, Token
from wallet.errors import Unavailable
from wallet.money import Money, MoneyError

log = structlog.get_logger(__name__)

_WHAT: Final = "the card acquirer"
_FIRST_DELAY_SECONDS: Final = 0.1
_LONGEST_DELAY_SECONDS: Final = 0.5

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the acquirer is waited for.

    Attributes:
        timeout_seconds: for one answer.
        attempts: at one call, at most.
        budget_seconds: of a call, after which it is not tried again.
        failures: in a row, which open the circuit: then no call is made,
        open_seconds: for so long.
    """

    timeout_seconds: float = 3.0
    attempts: int = 3
    budget_seconds: float = 4.0
    failures: int = 5
    open_seconds: float = 5.0


class HttpAcquirer:
    """`Acquirer` over HTTP. Every call may be repeated, by its key or since it changes nothing; so it is, a few times
    and for a short while. While the acquirer is out of order, calls fail at once.
    """

    def __init__(self, http: httpx.AsyncClient, patience: Patience) -> None:
        self._http = http
        self._patience = patience
        self._circuit = CircuitBreaker(failures=patience.failures, open_seconds=patience.open_seconds, on_change=_show)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, api_key: SecretStr, patience: Patience = Patience()
    ) -> AsyncIterator["HttpAcquirer"]:
        """A client of the acquirer at a base URL; connects when first called."""
        async with httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key.get_secret_value()}"},
            timeout=patience.timeout_seconds,
            trust_env=False,
        ) as http:
            yield cls(http, patience)

    async def tokenize(self, card: CardDetails) -> Token | Refusal:  # noqa: D102  as the protocol has it, like all here
        body = {
            "number": card.number,
            "expiryMonth": card.expiry_month,
            "expiryYear": card.expiry_year,
            "cvv": card.cvv,
        }
        return await self._call("POST", "/v1/tokens", _token, json=body)

    async def authorize(self, key: str, card: Token, amount: Money, reference: str) -> Payment | Refusal:  # noqa: D102
        body = {
            "token": card.token,
            "amount": str(amount),
            "currency": amount.currency,
            "reference": reference,
        }
        return await self._call("POST", "/v1/payments", _payment, json=body, key=key)

    async def find(self, key: str) -> Payment | NoPayment:  # noqa: D102
        found = await self._page({"idempotencyKey": key})
        return found[0] if found else NoPayment()

    async def cancel(self, key: str) -> Payment | NoPayment | Refusal:  # noqa: D102
        return await self._call("POST", "/v1/cancellations", _cancelled, json={"idempotencyKey": key})

    async def capture(self, payment_id: str, key: str) -> Payment | Refusal:  # noqa: D102
        return await self._call("POST", "/v1/payments/{id}/capture", _payment, key=key, id_=payment_id)

    async def void(self, payment_id: str, key: str) -> Payment | Refusal:  # noqa: D102
        return await self._call("POST", "/v1/payments/{id}/void", _payment, key=key, id_=payment_id)

    async def refund(self, payment_id: str, key: str) -> Payment | Refusal:  # noqa: D102
        return await self._call("POST", "/v1/payments/{id}/refund", _payment, key=key, id_=payment_id)

    async def payments(self, after: str | None, limit: int) -> list[Payment]:  # noqa: D102
        return await self._page({"limit": str(limit)} | ({} if after is None else {"after": after}))

    async def _page(self, parameters: Mapping[str, str]) -> list[Payment]:
        page = await self._call("GET", "/v1/payments", _payments, params=parameters)
        if isinstance(page, Refusal):  # of a look-up, which has nothing to refuse
            log.error("the acquirer refused a look-up", code=page.code)
            raise Unavailable(_WHAT)
        return page

    async def _call(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], Value],
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
        key: str | None = None,
        id_: str = "",
    ) -> Value | Refusal:
        """What `read` makes of the answer, or the acquirer's refusal. The `{id}` of a path is the one that is given.

        Raises:
            Unavailable: what became of the request is not known, or it was not made.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        at = path.format(id=quote(id_, safe=""))
        request = self._http.build_request(method, at, headers=headers, json=json, params=params)
        attributes = {"http.request.method": method, "url.template": path}
        with tracing.start_span(f"{method} {path}", request_context.current_trace(), SpanKind.CLIENT, attributes):
            try:
                return await retry(
                    lambda: self._once(request, read),
                    on=(_NoAnswerError, httpx.RequestError),
                    attempts=self._patience.attempts,
                    budget_seconds=self._patience.budget_seconds,
                    backoff=Backoff(_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS),
                )
            except (_NoAnswerError, httpx.RequestError, CircuitOpenError) as error:
                log.warning(
                    "no answer from the acquirer", call=f"{method} {at}", error=f"{type(error).__name__}: {error}"
                )
                raise Unavailable(_WHAT) from None

    async def _once(self, request: httpx.Request, read: Callable[[bytes], Value]) -> Value | Refusal:
        with self._circuit.guard():
            try:
                # httpx's own time-outs are of each read: an answer that drips would never be over.
                async with asyncio.timeout(self._patience.timeout_seconds):
                    response = await self._http.send(request)
            except TimeoutError:
                raise _NoAnswerError("no answer in time") from None
            try:
                if response.is_success:
                    return read(response.content)
                error = messages.Error.model_validate_json(response.content)
                payment = None if error.payment is None else _value(error.payment)
            except (ValidationError, MoneyError):
                raise _NoAnswerError(f"{response.status_code}, and nothing of the contract") from None
            if response.is_server_error:
                raise _NoAnswerError(f"{response.status_code} {error.code}")
        match error.code:
            case messages.Code.key_in_use:
                raise _NoAnswerError(error.code)
            case messages.Code.unauthorized:
                log.error("the acquirer does not believe our API key")
                raise Unavailable(_WHAT)
        return Refusal(error.code, payment)


class _NoAnswerError(Exception):
    """An answer that does not say what became of the request; the same request again may have one."""


class _Payments(BaseModel):
    payments: list[messages.Payment]


class _Cancellation(BaseModel):
    payment: messages.Payment | None


def _show(state: str) -> None:
    log.warning("the circuit to the acquirer has changed", state=state)
    metrics.CIRCUIT.state(state)


def _token(content: bytes) -> Token:
    message = messages.Token.model_validate_json(content)
    return Token(message.token, Brand(message.brand), message.last_four)


def _payment(content: bytes) -> Payment:
    return _value(messages.Payment.model_validate_json(content))


def _payments(content: bytes) -> list[Payment]:
    return [_value(payment) for payment in _Payments.model_validate_json(content).payments]


def _cancelled(content: bytes) -> Payment | NoPayment:
    payment = _Cancellation.model_validate_json(content).payment
    return NoPayment() if payment is None else _value(payment)


def _value(message: messages.Payment) -> Payment:
    return Payment(
        message.id,
        message.idempotency_key,
        PaymentStatus(message.status),
        Money.parse(message.amount, message.currency),
        Money.parse(message.captured, message.currency),
        Money.parse(message.refunded, message.currency),
        message.decline_code,
    )
