"""Requests to the graph: read from a body or an address, checked, or refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from gateway.http.strict_json import MalformedJSONError, loads

GRAPHQL_RESPONSE: Final = "application/graphql-response+json"
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
HTML: Final = "text/html"

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


class Refused(Exception):
    """A request that is not answered by the graph. The message is for people and repeats nothing of the request."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """One operation that is asked for: by its text, by the hash of one that is kept here, or by both."""

    query: str | None
    document_id: str | None
    variables: dict[str, Any] | None
    operation_name: str | None
    extensions: dict[str, Any] | None

    @classmethod
    def of(cls, parameters: Any) -> Self:
        """From decoded JSON.

        Raises:
            Refused: it is no well-formed request.
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


async def read(scope: Scope, receive: Receive, batch_limit: int) -> GraphRequest | list[GraphRequest]:
    """What is asked for; a list where it is a batch.

    Raises:
        Refused: it is no well-formed request, or not one of these methods and types.
        ClientDisconnect: nobody waits for an answer any more.
    """
    if scope["method"] in SAFE_METHODS:
        return GraphRequest.of(_parameters(scope["query_string"]))
    if scope["method"] != "POST":
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "send GET or POST", {"Allow": "GET, HEAD, POST"})
    if header(scope, b"content-type").partition(";")[0].strip().lower() != JSON:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {JSON}")
    body = _decoded(await _body(receive), "the body")
    if not isinstance(body, list):
        return GraphRequest.of(body)
    if not 0 < len(body) <= batch_limit:
        raise _malformed(f"a batch has 1 to {batch_limit} requests")
    return [GraphRequest.of(each) for each in body]


@lru_cache(maxsize=256)
def negotiated(accept: str, offers: Sequence[str]) -> str:
    """The one of the media types that an Accept header prefers (RFC 9110, 12.5.1); empty where it takes none.

    Of those that it takes as gladly, a later offer comes before an earlier one if it is named, and the first before all
    that are not: whoever takes anything may never have heard of the others.
    """
    ranges = dict(map(_media_range, (accept or "*/*").split(",")))

    def quality(offer: str) -> float:
        kind = offer.partition("/")[0]
        return next((ranges[each] for each in (offer, f"{kind}/*", "*/*") if each in ranges), 0.0)

    best = max(offers, key=lambda offer: (quality(offer), offers.index(offer) if offer in ranges else 0))
    return best if quality(best) else ""


def header(scope: Scope, name: bytes) -> str:
    """A header's value; of several lines, one list. Empty when there is none."""
    return ", ".join([value.decode("latin-1") for key, value in scope["headers"] if key == name])


def _media_range(text: str) -> tuple[str, float]:
    """`text/html; level=1; q=0.5` is `("text/html", 0.5)`. What is no quality counts as none."""
    media_type, *parameters = text.split(";")
    quality = next((each.strip()[2:] for each in parameters if each.strip().lower().startswith("q=")), "1")
    try:
        return media_type.strip().lower(), float(quality)
    except ValueError:
        return media_type.strip().lower(), 0.0


def _document_id(parameters: Mapping[str, Any], extensions: Mapping[str, Any]) -> str | None:
    """As clients write it: `documentId`, or Apollo's `extensions.persistedQuery.sha256Hash`."""
    persisted = extensions.get("persistedQuery")
    document_id = parameters.get("documentId") or (persisted.get("sha256Hash") if isinstance(persisted, dict) else None)
    if not isinstance(document_id, str | None):
        raise _malformed("`documentId` must be a string")
    return document_id


def _malformed(message: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, message)


def _parameters(query_string: bytes) -> dict[str, Any]:
    """Of an address. An empty one is none."""
    given = parse_qsl(query_string.decode("latin-1"))
    parameters: dict[str, Any] = dict(given)
    for name in ("variables", "extensions"):
        if name in parameters:
            parameters[name] = _decoded(parameters[name], f"`{name}`")
    return parameters


def _decoded(text: bytes | str, what: str) -> Any:
    try:
        return loads(text)
    except MalformedJSONError as error:
        raise _malformed(f"{what} {error}") from None


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
