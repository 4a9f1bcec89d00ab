"""Content codings of request bodies: gzip."""

import asyncio
import zlib
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import build_problem
from gateway.http.body_limit import too_large_response
from gateway.http.problems import response_to
from wallet.errors import InvalidInput

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_NO_CODING: Final = "identity"
_GZIP_FORMAT: Final = zlib.MAX_WBITS | 16
_SLICE_BYTES: Final = 8 * 1024
"""Encoded bytes that are decoded before other requests may run. Crafted bytes take 0.1 ms for each KiB."""
_REPLACED_FIELDS: Final = frozenset({b"content-encoding", b"content-length"})
_METHODS_WITHOUT_BODY: Final = frozenset({"GET", "HEAD"})


class ContentDecoding:
    """ASGI app that decodes the bodies of requests with a `Content-Encoding`, and passes them on without this header.

    The body must be one gzip member. Other codings, and several codings, are refused with 415 and `Accept-Encoding`. A
    body that is not gzip is refused with 400, and a body that is too large after decoding with 413.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        """Args:
        app: ASGI app for the decoded requests.
        limit_bytes: maximum size of a decoded body. `BodyLimit` around this app limits the encoded body.
        """
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            InvalidInput: the body is not one complete gzip member, although the header names gzip. The app is not
                called.
        """
        codings = [] if _has_no_body(scope) else _codings(scope)
        if not codings:
            await self._app(scope, receive, send)
            return
        if len(codings) > 1 or codings[0] not in _GZIP:
            problem = build_problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "send the body without a Content-Encoding, or with gzip",
            )
            await response_to(scope, problem, {"Accept-Encoding": "gzip"})(scope, receive, send)
            return
        encoded = await _read(receive)
        if encoded is None:
            return
        body = await _decode(encoded, self._limit)
        if body is None:
            await too_large_response(scope, self._limit)(scope, receive, send)
            return
        fields = [field for field in scope["headers"] if field[0] not in _REPLACED_FIELDS]
        scope["headers"] = [*fields, (b"content-length", b"%d" % len(body))]
        is_read = False

        async def receive_decoded() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_decoded, send)


def _has_no_body(scope: Scope) -> bool:
    return scope["type"] != "http" or scope["method"] in _METHODS_WITHOUT_BODY


def _codings(scope: Scope) -> list[str]:
    """Return the codings of a request's body in lower case, in the order in which they were applied."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"]
    codings = [coding.strip().lower() for coding in ",".join(values).split(",")]
    return [coding for coding in codings if coding not in {"", _NO_CODING}]


async def _read(receive: Receive) -> bytes | None:
    """Return the whole body as it was sent, or None if the client has disconnected."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _decode(encoded: bytes, limit: int) -> bytes | None:
    """Return the content of a gzip body, or None if it has more than `limit` bytes.

    At most `limit + 1` bytes are decoded.

    Raises:
        InvalidInput: the body is not one complete gzip member.
    """
    decoder, body = zlib.decompressobj(_GZIP_FORMAT), bytearray()
    for start in range(0, len(encoded), _SLICE_BYTES):
        if start:
            await asyncio.sleep(0)  # let other requests run
        if decoder.eof:
            raise _not_one_member()
        try:
            body += decoder.decompress(encoded[start : start + _SLICE_BYTES], limit + 1 - len(body))
        except zlib.error:
            raise InvalidInput.for_field("body", "must be gzip, as Content-Encoding says") from None
        if len(body) > limit:
            return None
    if not decoder.eof:
        raise InvalidInput.for_field("body", "must be complete: its gzip data ends too early")
    if decoder.unused_data:
        raise _not_one_member()
    return bytes(body)


def _not_one_member() -> InvalidInput:
    return InvalidInput.for_field("body", "must be one gzip member, with nothing behind it")
