"""Conditional reads of the REST API: `ETag` in responses, and 304 for a client that has the current content."""

import hashlib
from http import HTTPStatus
from typing import Any, Final

from starlette.types import Message, Scope, Send

from gateway.http.media_types import JSON

_METHODS: Final = frozenset({"GET", "HEAD"})
_PREFIXES: Final = ("/accounts", "/me")
_CACHING: Final = ((b"cache-control", b"private, no-cache"), (b"vary", b"Authorization"))
"""Headers of a read: only the caller's own cache may store it, and asks the gateway before each use."""
_TAG_BYTES: Final = 16


def conditional_send(scope: Scope, send: Send) -> Send:
    """Return the ASGI send of a request: for a read of the REST API it adds `ETag`, or replaces the response by 304.

    The tag is a hash of the body, so equal content has the same tag in all gateways. Only the transfer of the body is
    saved; the services are asked in any case.

    Args:
        scope: ASGI scope of an HTTP request.
        send: ASGI send.
    """
    if scope["method"] not in _METHODS or not scope["path"].startswith(_PREFIXES):
        return send
    return _ConditionalSend(scope, send)


def has_tag(if_none_match: str, tag: str) -> bool:
    """Return whether an `If-None-Match` names the tag, or all with `*`. Weak tags, with `W/`, match too (RFC 9110)."""
    return any(each.strip().removeprefix("W/") in {tag, "*"} for each in if_none_match.split(","))


class _ConditionalSend:
    """Sends the head of a response together with its body."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._head: dict[str, Any] | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_content(message):
            self._head = dict(message)
            return
        if self._head is not None:
            head, self._head = self._head, None
            if not message.get("more_body", False):
                message = self._tag(head, message)
            await self._send(head)
        await self._send(message)

    def _tag(self, head: dict[str, Any], message: Message) -> Message:
        """Add the tag and the rules for caches to the head, and return the message with the body."""
        tag = f'"{hashlib.sha256(message.get("body", b"")).hexdigest()[: 2 * _TAG_BYTES]}"'
        more = ((b"etag", tag.encode()), *_CACHING)
        conditions = [value.decode("latin-1") for name, value in self._scope["headers"] if name == b"if-none-match"]
        if has_tag(",".join(conditions), tag):
            head.update(status=int(HTTPStatus.NOT_MODIFIED), headers=[*more])
            return {**message, "body": b""}
        head["headers"] = [*head["headers"], *more]
        return message


def _is_content(start: Message) -> bool:
    """Return whether a response is 200 with JSON."""
    return start["status"] == HTTPStatus.OK and any(
        name == b"content-type" and value.startswith(JSON.encode()) for name, value in start["headers"]
    )
