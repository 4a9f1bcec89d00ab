"""Mapping of errors to HTTP problems (RFC 9457) and GraphQL errors."""

import re
from http import HTTPStatus
from typing import Any, Final

from graphql import GraphQLError

from kit.rpc import request_context
from openapi.models import FieldProblem, Period, Problem
from wallet.errors import (
    Code,
    InsufficientFunds,
    InternalError,
    InvalidInput,
    RateLimited,
    TokenTooLong,
    TooManyAttempts,
    TopUpLimitExceeded,
    UsernameTaken,
    WalletError,
)

STATUS: Final[dict[Code, HTTPStatus]] = {
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}
"""HTTP status of each gRPC code."""

STATUS_OVERRIDES: Final[dict[type[WalletError], HTTPStatus]] = {
    UsernameTaken: HTTPStatus.CONFLICT,
    TokenTooLong: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
}
"""HTTP status of errors that share their gRPC code with errors of another HTTP status."""

INVALID_GRAPHQL: Final = "INVALID_GRAPHQL"
"""Code of an invalid GraphQL request: its document, its variables or its operation name."""

_RETRY_AFTER_SECONDS: Final = 1
_RETRYABLE_CODES: Final = frozenset({Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE})


class OperationRefused(GraphQLError):
    """A GraphQL operation that the gateway rejects before execution, for example because of a limit.

    The message says what to do. Message and extensions quote nothing of the request.
    """

    def __init__(self, code: str, message: str, **extensions: object) -> None:
        super().__init__(message, extensions={"code": code, **extensions})


def rate_limited_to_graphql(error: RateLimited) -> OperationRefused:
    """Convert a rate limit error to GraphQL. Its extension `retryAfter` is in seconds."""
    return OperationRefused(error.reason, error.message, retryAfter=int(error.retry_after_seconds))


def problem_from_error(error: WalletError) -> tuple[Problem, dict[str, str]]:
    """Convert an error to a problem and the response headers that go with it."""
    status = STATUS_OVERRIDES.get(type(error), STATUS[error.code])
    body = build_problem(status, error.reason, error.message)
    headers = {}
    if isinstance(error, InvalidInput):
        body.fields = [FieldProblem(field=each.field, message=each.message) for each in error.violations]
    if isinstance(error, InsufficientFunds):
        body.needed, body.available, body.currency = error.needed, error.available, error.currency
    if isinstance(error, TopUpLimitExceeded):
        body.limit, body.available, body.currency = error.limit, error.available, error.currency
        body.period = Period(error.period)
    if error.code in _RETRYABLE_CODES:
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    if isinstance(error, TooManyAttempts | RateLimited):
        headers["Retry-After"] = error.retry_after_seconds
    if error.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return body, headers


def build_problem(status: HTTPStatus, code: str, detail: str) -> Problem:
    """Build a problem with the current request id.

    Args:
        status: HTTP status.
        code: stable machine name.
        detail: message for people.
    """
    return Problem(
        type=f"urn:wallet:problem:{code.lower().replace('_', '-')}",
        title=status.phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=request_context.current_request.get().request_id,
    )


def redact_digits(text: str) -> str:
    """Replace each number of a text with `#`.

    Used for messages that quote the request, so that card data is never reflected.
    """
    return re.sub(r"\d+", "#", text)


def is_unexpected(error: GraphQLError) -> bool:
    """Return whether the error is a defect of the system.

    Errors of a service are expected, and so are errors in the document or the variables, which are found before
    execution: they have nodes but no path.
    """
    cause = error.original_error
    if cause is None or isinstance(cause, WalletError | GraphQLError):
        return False
    return error.path is not None or not error.nodes


def format_graphql_error(error: GraphQLError, *, suggestions: bool = True) -> GraphQLError:
    """Return the error as the caller sees it, with a stable `extensions.code` and the request id.

    Details of unexpected errors are hidden, and numbers of the request are redacted. Formatting a formatted error
    returns it unchanged.

    Args:
        error: error of validation or execution.
        suggestions: False removes "Did you mean", which reveals names of the schema.
    """
    if "requestId" in (error.extensions or {}):
        return error
    extensions: dict[str, Any] = {
        "code": INVALID_GRAPHQL,
        "requestId": request_context.current_request.get().request_id,
    }
    message = redact_digits(error.message)
    if not suggestions:
        message = message.partition(" Did you mean ")[0]
    if isinstance(error, OperationRefused):
        message = error.message
        extensions |= error.extensions or {}
    expected = InternalError() if is_unexpected(error) else error.original_error
    if isinstance(expected, WalletError):
        extensions["code"] = expected.reason
        message = expected.message
        if isinstance(expected, InvalidInput):
            extensions["fields"] = [{"field": each.field, "message": each.message} for each in expected.violations]
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )
