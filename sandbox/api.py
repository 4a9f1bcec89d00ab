"""HTTP API of `openapi/acquirer.yaml`, and a page that describes the sandbox."""

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from kit.http.admin import HealthCheck, add_health_routes
from kit.http.invalid_requests import QueryParameters, WholeNumber, body_model, describe_error
from kit.http.routing import allowed_methods, answer_head, describe_wrong_method, new_app
from openapi.acquirer import AuthorizationRequest, CardDetails, Code, Token
from sandbox.acquirer import Acquirer
from sandbox.behaviours import Step
from sandbox.cards import CARDS, card_brand
from sandbox.messages import payment_to_message, refusal_to_body
from sandbox.payments import AuthorizationOrder, Payment, Refusal

log = structlog.get_logger(__name__)

_KEY: Final = {"min_length": 1, "max_length": 255, "pattern": r"^[\x21-\x7e]+$"}
_STATUS: Final = {
    Code.unauthorized: 401,
    Code.invalid_request: 422,
    Code.invalid_card: 422,
    Code.unknown_token: 422,
    Code.not_found: 404,
    Code.key_reused: 409,
    Code.key_in_use: 409,
    Code.key_cancelled: 409,
    Code.wrong_status: 409,
    Code.refused: 409,
    Code.unavailable: 503,
}

_CLIENT_CLOSED_REQUEST: Final = 499

IdempotencyKey = Annotated[str, Header(alias="Idempotency-Key", **_KEY)]


PATTERN_MESSAGES: Final[Mapping[str, str]] = {
    r"^[0-9]{1,18}(\.[0-9]{1,4})?$": "must be a decimal number such as 10.00, with at most 4 decimals",
    r"^[A-Z]{3}$": "must be an ISO 4217 currency such as RUB",
    r"^[\x21-\x7e]+$": "must be printable ASCII characters without spaces",
}
"""Messages by regular expression of the contract. A test fails if a regular expression has no message."""

_NO_PATH: Final = "there is no such path: see openapi/acquirer.yaml"


class StrictRoute(APIRoute):
    """Route that refuses unknown query parameters, and repetitions of parameters that have a single value."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:  # noqa: D102  FastAPI's
        handle = super().get_route_handler()
        query = QueryParameters.of_route(self)

        async def check_and_handle(request: Request) -> Response:
            if errors := query.find_errors(name for name, _ in request.query_params.multi_items()):
                raise _invalid_request(errors)
            return await handle(request)

        return check_and_handle


def _invalid_request(errors: Mapping[str, str]) -> Refusal:
    """Return the refusal of a request whose invalid fields have these messages."""
    return Refusal(Code.invalid_request, "; ".join(f"{field}: {message}" for field, message in errors.items()))


class Cancellation(BaseModel):
    """Body of a cancellation; the contract does not name this schema."""

    model_config = ConfigDict(extra="forbid")
    idempotency_key: Annotated[str, Field(alias="idempotencyKey", **_KEY)]


def build_app(acquirer: Acquirer, checks: Mapping[str, HealthCheck]) -> FastAPI:
    """Return the app: the contract's routes, health checks, and `/` with the list of test cards."""
    app = new_app()
    _add_errors(app)
    add_health_routes(app, checks)
    app.router.routes += _routes(acquirer).routes

    @app.get("/")
    async def about() -> dict[str, Any]:
        return {
            "what": "A sandbox acquirer: it moves no money and knows no real card. For development and tests only.",
            "cards": [
                {
                    "number": number,
                    "brand": card_brand(number),
                    "behaviour": behaviour.name,
                    "meaning": behaviour.meaning,
                }
                for number, behaviour in CARDS.items()
            ],
        }

    answer_head(app.router.routes)
    return app


def error_response(refusal: Refusal) -> JSONResponse:
    """Return the response for a refusal."""
    return JSONResponse(refusal_to_body(refusal), _STATUS[refusal.code])


def _routes(acquirer: Acquirer) -> APIRouter:
    router = APIRouter(prefix="/v1", route_class=StrictRoute)

    @router.post("/tokens", status_code=201)
    async def create_token(body: CardDetails) -> Token:
        expiry = (body.expiry_year, body.expiry_month)
        card = acquirer.tokenize(body.number.get_secret_value(), expiry, body.cvv.get_secret_value())
        return Token(token=card.token, brand=card.brand, last_four=card.last_four)

    @router.post("/payments", status_code=201)
    async def authorize(request: Request, body: AuthorizationRequest, key: IdempotencyKey) -> dict[str, Any]:
        if not body.amount.strip("0."):
            raise Refusal(Code.invalid_request, "amount: must be greater than 0")
        order = AuthorizationOrder(body.token, body.amount, body.currency, body.reference or "")
        return _payment_body(await acquirer.authorize(order, key, lambda: _wait_for_disconnect(request)))

    @router.get("/payments")
    async def list_payments(
        idempotency_key: Annotated[str | None, Query(alias="idempotencyKey", **_KEY)] = None,
        after: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[WholeNumber, Query(ge=1, le=1_000)] = 100,
    ) -> dict[str, Any]:
        payments = acquirer.payments(key=idempotency_key, after=after, limit=limit)
        return {"payments": [_payment_body(payment) for payment in payments]}

    @router.get("/payments/{payment_id}")
    async def get_payment_body(payment_id: str) -> dict[str, Any]:
        return _payment_body(acquirer.payment(payment_id))

    @router.post("/payments/{payment_id}/capture")
    async def capture(request: Request, payment_id: str, key: IdempotencyKey) -> dict[str, Any]:
        return _payment_body(
            await acquirer.change(Step.CAPTURE, payment_id, key, lambda: _wait_for_disconnect(request))
        )

    @router.post("/payments/{payment_id}/void")
    async def void(request: Request, payment_id: str, key: IdempotencyKey) -> dict[str, Any]:
        return _payment_body(await acquirer.change(Step.VOID, payment_id, key, lambda: _wait_for_disconnect(request)))

    @router.post("/payments/{payment_id}/refund")
    async def refund(request: Request, payment_id: str, key: IdempotencyKey) -> dict[str, Any]:
        return _payment_body(await acquirer.change(Step.REFUND, payment_id, key, lambda: _wait_for_disconnect(request)))

    @router.post("/cancellations")
    async def cancel(body: Cancellation) -> dict[str, Any]:
        payment = acquirer.cancel(body.idempotency_key)
        return {"idempotencyKey": body.idempotency_key, "payment": payment and _payment_body(payment)}

    return router


def _payment_body(payment: Payment) -> dict[str, Any]:
    return payment_to_message(payment).model_dump(mode="json", by_alias=True, exclude_none=True)


async def _wait_for_disconnect(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def expected(_: Request, error: Refusal) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        body = body_model(request.scope.get("route"))
        errors = [describe_error(each, PATTERN_MESSAGES, body) for each in error.errors()]
        return error_response(_invalid_request(dict(errors)))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, ClientDisconnect):  # the client disconnected before the body was complete
            return Response(status_code=_CLIENT_CLOSED_REQUEST)  # for the log
        headers, code, detail = dict(error.headers or {}), Code.invalid_request, ""
        if error.status_code == HTTPStatus.NOT_FOUND:
            code, detail = Code.not_found, _NO_PATH
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(allowed_methods(app.router.routes, request.scope))
            detail = describe_wrong_method(headers["Allow"])
        body = refusal_to_body(Refusal(code, detail))
        return JSONResponse(body, error.status_code, headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", exc_info=error)
        return error_response(Refusal(Code.unavailable))
