"""Exception handlers of the FastAPI app: every error becomes a problem (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.errors import build_problem, problem_from_error
from gateway.http.problems import problem_response
from gateway.rest.invalid_fields import invalid_input
from gateway.rest.request_checks import UnsupportedMediaTypeError, unsupported_media_type
from kit.http.invalid_requests import body_model
from kit.http.routing import allowed_methods, describe_wrong_method
from wallet.errors import InternalError, WalletError

log = structlog.get_logger(__name__)

_DETAILS: Final[Mapping[HTTPStatus, str]] = {
    HTTPStatus.NOT_FOUND: "there is no such path; /openapi.yaml lists the paths of the API",
}
_OTHER_DETAIL: Final = "the request is not valid; /docs describes the API"


def add_error_handlers(app: FastAPI) -> None:
    """Register a handler for each kind of error."""

    @app.exception_handler(WalletError)
    async def handle_wallet_error(_: Request, error: WalletError) -> Response:
        return problem_response(*problem_from_error(error))

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
        invalid = invalid_input(error.errors(), body_model(request.scope.get("route")))
        return problem_response(*problem_from_error(invalid))

    @app.exception_handler(UnsupportedMediaTypeError)
    async def handle_unsupported_media_type(_: Request, __: UnsupportedMediaTypeError) -> Response:
        return unsupported_media_type()

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        headers = dict(error.headers or {})
        detail = _DETAILS.get(status, _OTHER_DETAIL)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            if allowed := allowed_methods(app.router.routes, request.scope):
                headers["Allow"] = ", ".join(allowed)
            detail = describe_wrong_method(headers["Allow"])
        return problem_response(build_problem(status, status.name, detail), headers)

    @app.exception_handler(Exception)
    async def handle_unexpected_error(_: Request, error: Exception) -> Response:
        log.error("unexpected error", exc_info=error)
        return problem_response(*problem_from_error(InternalError()))
