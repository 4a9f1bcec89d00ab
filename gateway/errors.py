"""What each error is over HTTP and in the graph: the one table of both."""

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

STATUS_OVERRIDES: Final[dict[type[WalletError], HTTPStatus]] = {UsernameTaken: HTTPStatus.CONFLICT}
"""Of what HTTP tells apart and gRPC does not."""

INVALID_GRAPHQL: Final = "INVALID_GRAPHQL"
"""The code of what is not valid as it stands: the text, the variables, the operation's name."""

_RETRY_AFTER_SECONDS: Final = 1
_RETRY_LATER: Final = frozenset({Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE})


class OperationRefused(GraphQLError):
    """An operation of the graph that is not executed, for a reason of ours. The message says what to do; neither it nor
    the extensions repeat anything of the request.
    """

    def __init__(self, code: str, message: str, **extensions: object) -> None:
        super().__init__(message, extensions={"code": code, **extensions})


def rate_limited_to_graphql(error: RateLimited) -> OperationRefused:
    """What is more than one caller may ask for, as the graph has it: `retryAfter` is in seconds."""
    return OperationRefused(error.reason, error.message, retryAfter=int(error.retry_after_seconds))


def problem_from_error(error: WalletError) -> tuple[Problem, dict[str, str]]:
    """The RFC 9457 problem that an error is, and the headers that go with it."""
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
    if error.code in _RETRY_LATER:
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    if isinstance(error, TooManyAttempts | RateLimited):
        headers["Retry-After"] = error.retry_after_seconds
    if error.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return body, headers


def build_problem(status: HTTPStatus, code: str, detail: str) -> Problem:
    """A problem of a status and a stable code."""
    return Problem(
        type=f"urn:wallet:problem:{code.lower().replace('_', '-')}",
        title=status.phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=request_context.current_request.get().request_id,
    )


def redact_digits(text: str) -> str:
    """The text with a `#` for each of its numbers.

    For what quotes a request that is wrong: wherever a card's number and code were put in it, they come back to nobody.
    """
    return re.sub(r"\d+", "#", text)


def is_unexpected(error: GraphQLError) -> bool:
    """Whether the error is a defect of ours: neither refused by a service nor the request's own, that is found in its
    text or its variables before anything was executed.
    """
    cause = error.original_error
    if cause is None or isinstance(cause, WalletError | GraphQLError):
        return False
    return error.path is not None or not error.nodes


def format_graphql_error(error: GraphQLError, *, suggestions: bool = True) -> GraphQLError:
    """The same error with a stable `extensions.code` and the request's id. What is not for the caller is hidden, and
    what the request had in it is not repeated. Without suggestions it does not tell what else there is in the graph.

    Safe to call on what it returned.
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
