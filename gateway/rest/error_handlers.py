"""Exception handlers of the FastAPI app: every error becomes a problem (RFC 9457)."""

from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.errors import build_problem, problem_from_error
from gateway.http.problems import problem_response
from gateway.rest.guarded_route import UnsupportedMediaTypeError
from kit.http.routing import allowed_methods
from wallet.errors import FieldViolation, InternalError, InvalidInput, WalletError

log = structlog.get_logger(__name__)

_MAX_ERRORS: Final = 20
"""Errors of one request body that are reported."""


def add_error_handlers(app: FastAPI) -> None:
    """Register a handler for each kind of error."""

    @app.exception_handler(WalletError)
    async def handle_wallet_error(_: Request, error: WalletError) -> Response:
        return problem_response(*problem_from_error(error))

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(_: Request, error: RequestValidationError) -> Response:
        # Pydantic's messages name the rule, never the value.
        violations = dict.fromkeys(
            FieldViolation(_field(each), _message(each)) for each in error.errors()[:_MAX_ERRORS]
        )
        return problem_response(*problem_from_error(InvalidInput(tuple(violations))))

    @app.exception_handler(UnsupportedMediaTypeError)
    async def handle_unsupported_media_type(_: Request, __: UnsupportedMediaTypeError) -> Response:
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        return problem_response(build_problem(status, "UNSUPPORTED_MEDIA_TYPE", "send application/json in UTF-8"), {})

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        headers = dict(error.headers or {})
        if status is HTTPStatus.METHOD_NOT_ALLOWED and (allowed := allowed_methods(app.router.routes, request.scope)):
            headers["Allow"] = ", ".join(allowed)
        return problem_response(build_problem(status, status.name, error.detail), headers)

    @app.exception_handler(Exception)
    async def handle_unexpected_error(_: Request, error: Exception) -> Response:
        log.error("unexpected error", exc_info=error)
        return problem_response(*problem_from_error(InternalError()))


def _message(error: dict[str, Any]) -> str:
    """Return the broken rule. For the length of a secret it is ours: Pydantic's counts "items", and tells how many."""
    if error["type"] in {"too_short", "too_long"} and error["ctx"]["field_type"] == "Value":
        least, most = error["ctx"].get("min_length"), error["ctx"].get("max_length")
        return f"must have at most {most} characters" if least is None else f"must have at least {least} characters"
    message: str = error["msg"]
    return message


def _field(error: dict[str, Any]) -> str:
    """Return the name of the invalid field: `("body", "amount")` is `amount`, a body that is not JSON is `body`.

    The name of an unknown field is not repeated: it may be a password or a card number in the wrong place. The error is
    then about the object that has the field.
    """
    location: tuple[str | int, ...] = error["loc"]
    known = location[:-1] if error["type"] == "extra_forbidden" else location
    return ".".join(part for part in known[1:] if isinstance(part, str)) or str(location[0])
