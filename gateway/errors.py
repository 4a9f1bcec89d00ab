"""Mapping of errors to HTTP problems (RFC 9457) and GraphQL errors."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from graphql import GraphQLError, GraphQLSyntaxError, Node
from graphql.language import SourceLocation

from gateway.http.problem_types import PROBLEM_TYPES, UNTYPED
from kit.auth.bearer import challenge
from kit.rpc import request_context
from openapi.models import FieldProblem, Period, Problem
from wallet.errors import (
    Code,
    InsufficientFunds,
    InternalError,
    InvalidInput,
    LedgerRestored,
    RateLimited,
    ReferenceUsed,
    TokenTooLong,
    TooManyAttempts,
    TopUpDeclinesExceeded,
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
    LedgerRestored: HTTPStatus.GONE,
    UsernameTaken: HTTPStatus.CONFLICT,
    ReferenceUsed: HTTPStatus.CONFLICT,
    TokenTooLong: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
}
"""HTTP status of errors that share their gRPC code with errors of another HTTP status."""

INVALID_GRAPHQL: Final = "INVALID_GRAPHQL"
"""Code of a GraphQL request with an invalid document, invalid variables or an invalid operation name."""

METHOD_NOT_ALLOWED: Final = HTTPStatus.METHOD_NOT_ALLOWED.name
"""Code of the error for a mutation that was sent by GET."""

_TOKENS: Final = {"Name": "a name", "<EOF>": "the end of the document", "String": "a string"}
"""Names of token kinds in messages. Punctuators and keywords are shown as they are."""

REPLAYED: Final = {"Idempotency-Replayed": "true"}
"""Headers of a response that repeats the outcome of an earlier request with the same idempotency key."""

_MAX_LOCATIONS: Final = 5
_RETRY_AFTER_SECONDS: Final = 1
_RETRYABLE_CODES: Final = frozenset({Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE})


class OperationRefused(GraphQLError):
    """The gateway rejects a GraphQL operation, because of a limit or because the request is invalid.

    The message says what to do. Neither the message nor the extensions quote the request: they contain the kind of the
    error and names from the schema. The locations show where the error is in the document.
    """

    def __init__(self, code: str, message: str, nodes: Sequence[Node] = (), **extensions: object) -> None:
        """Args:
        code: stable machine name.
        message: message for people.
        nodes: places in the document.
        extensions: further members of the error's `extensions`.
        """
        super().__init__(message, extensions={"code": code, **extensions})
        self.nodes = list(nodes) or None  # as an argument, the nodes would make GraphQLError scan the text for lines


def rate_limited_to_graphql(error: RateLimited) -> OperationRefused:
    """Convert a rate limit error to GraphQL. The extension `retryAfter` is in seconds."""
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
    if isinstance(error, TooManyAttempts | RateLimited | TopUpDeclinesExceeded):
        headers["Retry-After"] = error.retry_after_seconds
    if (value := challenge(error)) is not None:
        headers["WWW-Authenticate"] = value
    if error.is_replay:
        headers |= REPLAYED
    return body, headers


def build_problem(status: HTTPStatus, code: str, detail: str) -> Problem:
    """Build a problem with the current request id.

    Args:
        status: HTTP status.
        code: stable machine name.
        detail: message for people.
    """
    type_ = PROBLEM_TYPES.get(code)
    return Problem(
        type=type_.uri if type_ else UNTYPED,
        title=type_.title if type_ else status.phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=request_context.current_request.get().request_id,
    )


def is_request_error(data: object, errors: Sequence[GraphQLError]) -> bool:
    """Return whether the request failed before any field was executed: errors of fields have a path."""
    return data is None and not any(error.path for error in errors)


def is_unexpected(error: GraphQLError) -> bool:
    """Return whether the error is a defect of the system.

    Errors that a service returns are expected. Errors in the document or in the variables are expected too: they are
    found before execution, so they have nodes but no path.
    """
    cause = error.original_error
    if cause is None or isinstance(cause, WalletError | GraphQLError):
        return False
    return error.path is not None or not error.nodes


def format_graphql_error(error: GraphQLError) -> GraphQLError:
    """Return the error as the caller sees it, with a stable `extensions.code` and the request id.

    The gateway writes every message itself. Messages of graphql-core and Strawberry are replaced, because they quote
    the request, which may contain card data and may be long. Details of unexpected errors are hidden. An error that is
    already formatted is returned unchanged.
    """
    if "requestId" in (error.extensions or {}):
        return error
    extensions: dict[str, Any] = {
        "code": INVALID_GRAPHQL,
        "requestId": request_context.current_request.get().request_id,
    }
    if isinstance(error, OperationRefused):
        message = error.message
        extensions |= error.extensions or {}
    elif isinstance(expected := InternalError() if is_unexpected(error) else error.original_error, WalletError):
        extensions["code"] = expected.reason
        message = expected.message
        if isinstance(expected, InvalidInput):
            extensions["fields"] = [{"field": each.field, "message": each.message} for each in expected.violations]
        if isinstance(expected, RateLimited) and expected.retry_after_seconds.isdigit():
            extensions["retryAfter"] = int(expected.retry_after_seconds)
    elif isinstance(error, GraphQLSyntaxError):
        message = _syntax_message(error)
    elif error.path:
        message = "an argument has an invalid value: check the variables"
    else:
        message = "the request is not valid GraphQL: check `query`, `operationName` and `variables`"
    formatted = GraphQLError(message, path=error.path, extensions=extensions)
    formatted.locations = _locations(error)
    return formatted


def _syntax_message(error: GraphQLSyntaxError) -> str:
    """Return the message of a syntax error. It names the expected token, but not the token in the document."""
    expected, found, _ = error.description.partition(", found ")
    if not found or not expected.startswith("Expected "):
        return "syntax error: correct the document at this place"
    token = expected.removeprefix("Expected ").replace("'", "`").replace('"', "`")
    return f"syntax error: this place needs {_TOKENS.get(token, token)}"


def _locations(error: GraphQLError) -> list[SourceLocation] | None:
    """Return the locations of the error's first nodes.

    Line numbers come from the tokens, because counting the lines again takes up to 10 ms.
    """
    if not error.nodes:
        return error.locations
    tokens = [node.loc.start_token for node in error.nodes[:_MAX_LOCATIONS] if node.loc]
    return [SourceLocation(token.line, token.column) for token in tokens] or None
