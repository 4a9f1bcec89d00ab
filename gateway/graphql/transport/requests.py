"""Reads GraphQL requests from a body or a query string, and negotiates the media type of the response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from gateway.http.large_bodies import DEFAULT_BODY_LIMIT_BYTES, has_too_many_values
from gateway.http.media_types import JSON, is_utf8_json
from gateway.http.strict_json import MalformedJSONError, loads
from kit.rpc import request_context

GRAPHQL_RESPONSE: Final = "application/graphql-response+json"
EVENT_STREAM: Final = "text/event-stream"
MULTIPART: Final = "multipart/mixed"
HTML: Final = "text/html"

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

_MAX_ACCEPT_LENGTH: Final = 1_000
"""Number of characters of an Accept header that count. Browsers send some 200."""

_SUBSCRIPTION_SPEC: Final = "subscriptionspec="
"""Parameter of `multipart/mixed` with which a client accepts Apollo's multipart subscriptions."""

_PARAMETERS: Final = ("query", "operationName", "variables", "extensions", "documentId")
"""Parameters of a request by GET."""

ANONYMOUS_BODY_BYTES: Final = 16 * 1024
"""Maximum size of the body of a request without a token. An introspection query has 2 KB."""


class RequestRefused(Exception):
    """The HTTP request is not a GraphQL request. The message is shown to the caller and does not quote the request.

    Attributes:
        status: HTTP status of the response.
        message: rule that the request breaks, or what to send instead.
        headers: further headers of the response.
    """

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """One GraphQL request.

    Attributes:
        query: text of the document; None if only its hash is sent.
        document_id: SHA-256 of a trusted document, in hexadecimal.
        variables: variables by name.
        operation_name: operation to execute, if the document has several.
        extensions: extensions of the request.
    """

    query: str | None
    document_id: str | None
    variables: dict[str, Any] | None
    operation_name: str | None
    extensions: dict[str, Any] | None

    @classmethod
    def from_json(cls, parameters: Any) -> Self:
        """Build a request from a decoded JSON value.

        Raises:
            RequestRefused: the request is malformed.
        """
        if not isinstance(parameters, dict):
            raise _malformed("a request must be an object")
        query, extensions = parameters.get("query"), parameters.get("extensions")
        if not isinstance(extensions, dict | None):
            raise _malformed("`extensions` must be an object or null")
        document_id = _document_id(parameters, extensions or {})
        if not isinstance(query, str | None if document_id else str):
            raise _malformed("`query` must be a string")
        operation_name = parameters.get("operationName")
        if not isinstance(operation_name, str | None):
            raise _malformed("`operationName` must be a string or null")
        variables = parameters.get("variables")
        if not isinstance(variables, dict | None):
            raise _malformed("`variables` must be an object or null")
        return cls(query, document_id, variables, operation_name, extensions)


async def read_text(scope: Scope, receive: Receive) -> bytes:
    """Return the query string of a GET request, or the body of a POST request.

    Args:
        scope: ASGI scope.
        receive: ASGI receive.

    Raises:
        RequestRefused: the method or the content type is not supported, or the body is too large for a request without
            a token.
        ClientDisconnect: the client disconnected before the end of the body.
    """
    if scope["method"] in SAFE_METHODS:
        query_string: bytes = scope["query_string"]
        return query_string
    if scope["method"] != "POST":
        raise RequestRefused(HTTPStatus.METHOD_NOT_ALLOWED, "send GET or POST", {"Allow": "GET, HEAD, POST"})
    if not is_utf8_json(read_header(scope, b"content-type")):
        raise RequestRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {JSON} in UTF-8")
    text = await _read_body(receive)
    if len(text) > ANONYMOUS_BODY_BYTES and request_context.current_request.get().principal is None:
        message = f"a body without a token must be at most {ANONYMOUS_BODY_BYTES} bytes: send your token"
        raise RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
    return text


def parse_request(method: str, text: bytes, batch_limit: int) -> GraphRequest | list[GraphRequest]:
    """Return the request, or a list of requests if the body is an array.

    Args:
        method: HTTP method.
        text: query string or body, see `read_text`.
        batch_limit: maximum number of requests in one array.

    Raises:
        RequestRefused: the request is malformed.
    """
    if method in SAFE_METHODS:
        return GraphRequest.from_json(_parse_query_string(text))
    is_large = len(text) > DEFAULT_BODY_LIMIT_BYTES
    if has_too_many_values(text):
        raise _malformed("the body has too many values: send fewer transfers")
    body = _loads(text, "the body")
    if not isinstance(body, list):
        request = GraphRequest.from_json(body)
        if is_large and len(request.query or "") > DEFAULT_BODY_LIMIT_BYTES:
            raise _too_large(f"`query` must have at most {DEFAULT_BODY_LIMIT_BYTES} characters")
        return request
    if is_large:
        raise _too_large(f"an array of requests must be at most {DEFAULT_BODY_LIMIT_BYTES} bytes")
    if not 0 < len(body) <= batch_limit:
        raise _malformed(f"a batch has 1 to {batch_limit} requests")
    return [GraphRequest.from_json(each) for each in body]


def negotiate(accept: str, offers: Sequence[str]) -> str:
    """Return the media type that an Accept header prefers (RFC 9110, 12.5.1), or an empty string if none is acceptable.

    Only the first thousand characters of the header count, because long ones take long to read.

    If the header gives several offers the same quality, the last one in `offers` that the header names is chosen. If
    the header names none of them (`*/*`), the first offer is chosen, because such a client may not support the others.

    Args:
        accept: the header's value.
        offers: media types that the server can send.
    """
    return _negotiate(accept[:_MAX_ACCEPT_LENGTH], offers)


@lru_cache(maxsize=256)
def _negotiate(accept: str, offers: Sequence[str]) -> str:
    ranges = dict(map(_media_range, (accept or "*/*").split(",")))

    def quality(offer: str) -> float:
        kind = offer.partition("/")[0]
        return next((ranges[each] for each in (offer, f"{kind}/*", "*/*") if each in ranges), 0.0)

    best = max(offers, key=lambda offer: (quality(offer), offers.index(offer) if offer in ranges else 0))
    return best if quality(best) else ""


def accepts_multipart(accept: str) -> bool:
    """Return whether an Accept header asks for multipart subscriptions, not for other multipart responses."""
    return _SUBSCRIPTION_SPEC in accept[:_MAX_ACCEPT_LENGTH].lower()


def read_header(scope: Scope, name: bytes) -> str:
    """Return a header's value: repeated headers are joined by commas, a missing header is an empty string."""
    return ", ".join([value.decode("latin-1") for key, value in scope["headers"] if key == name])


def _media_range(text: str) -> tuple[str, float]:
    """Parse `text/html; level=1; q=0.5` to `("text/html", 0.5)`. A malformed quality is 0."""
    media_type, *parameters = text.split(";")
    quality = next((each.strip()[2:] for each in parameters if each.strip().lower().startswith("q=")), "1")
    try:
        return media_type.strip().lower(), float(quality)
    except ValueError:
        return media_type.strip().lower(), 0.0


def _document_id(parameters: Mapping[str, Any], extensions: Mapping[str, Any]) -> str | None:
    """Return the hash of the document: `documentId`, or Apollo's `extensions.persistedQuery.sha256Hash`."""
    persisted = extensions.get("persistedQuery")
    document_id = parameters.get("documentId") or (persisted.get("sha256Hash") if isinstance(persisted, dict) else None)
    if not isinstance(document_id, str | None):
        raise _malformed("`documentId` must be a string")
    return document_id


def _too_large(message: str) -> RequestRefused:
    return RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


def _malformed(message: str) -> RequestRefused:
    return RequestRefused(HTTPStatus.BAD_REQUEST, message)


def _parse_query_string(query_string: bytes) -> dict[str, Any]:
    """Return the parameters of a query string, without empty ones.

    An empty `query` is kept if the request has neither `documentId` nor `extensions`, which may contain a hash.

    Raises:
        RequestRefused: a GraphQL parameter is given twice, or `variables` or `extensions` is not JSON.
    """
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    values = dict(pairs)
    parameters: dict[str, Any] = {name: value for name, value in pairs if value}
    if values.get("query") == "" and not parameters.keys() & {"documentId", "extensions"}:
        parameters["query"] = ""
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        for name in _PARAMETERS:
            if names.count(name) > 1:
                raise _malformed(f"`{name}` is given twice: send it once")
    for name in ("variables", "extensions"):
        if name in parameters:
            parameters[name] = _loads(parameters[name], f"`{name}`")
    return parameters


def _loads(text: bytes | str, subject: str) -> Any:
    try:
        return loads(text)
    except MalformedJSONError as error:
        raise _malformed(f"{subject} {error}") from None


async def _read_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
