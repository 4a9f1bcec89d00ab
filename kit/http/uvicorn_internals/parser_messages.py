"""Our messages for requests that httptools cannot parse. They replace those of llhttp, the parser in httptools."""

from http import HTTPStatus
from typing import Final

_TLS_HANDSHAKE: Final = b"\x16\x03"
"""First bytes of a TLS connection."""

_FIELD: Final = (
    "send each field as one line `Name: value` that ends with CR LF: no space before the name or the colon, "
    "and no control character in it"
)
_HTTP_2: Final = "this server speaks HTTP/1.1: use HTTP/1.1, or connect through a proxy that speaks HTTP/2"
OTHER_VERSION: Final = "send the request with HTTP/1.1 or HTTP/1.0: this server speaks no other version or protocol"
"""Message for a request line that ends with another version or protocol."""
_NO_VERSION: Final = "end the first line of the request with HTTP/1.1 and CR LF"

_MESSAGES: Final = (
    ("can't be present with", "send Content-Length or Transfer-Encoding, not both: they contradict each other"),
    ("content-length", "send one Content-Length, as the decimal number of bytes of the body"),
    ("transfer-encoding", "send the body with Content-Length, or with one Transfer-Encoding: chunked"),
    ("header", _FIELD),
    ("chunk", "send each chunk as its size in hexadecimal, CR LF, as many bytes, and CR LF"),
    ("for ice/", OTHER_VERSION),
    ("for rtsp/", OTHER_VERSION),
    ("http/2", _HTTP_2),
    ("method", "start the request with a method in capital letters, such as GET"),
    ("url", "send the path in ASCII and percent-encoded, starting with /, with one space before and after it"),
    ("pri", _HTTP_2),
    ("invalid http version", OTHER_VERSION),
    ("version", _NO_VERSION),
    ("expected http/", _NO_VERSION),
)
"""Pairs of a part of llhttp's message, in lower case, and our message. The first pair that matches is used."""

_TLS: Final = "this port speaks HTTP without TLS: use http://, or connect to the proxy that has the certificate"
_OTHERS: Final = (
    "send a request as in RFC 9112: a first line such as `GET / HTTP/1.1`, the fields, an empty line, the body"
)


def describe_parser_error(error: Exception, data: bytes | memoryview) -> tuple[HTTPStatus, str]:
    """Return the status and the message for a request that the parser has refused.

    The message says what to send, and does not quote the request.

    Args:
        error: httptools' error.
        data: received data that the parser has refused.
    """
    if data[: len(_TLS_HANDSHAKE)] == _TLS_HANDSHAKE:
        return HTTPStatus.BAD_REQUEST, _TLS
    text = str(error).lower()
    message = next((message for part, message in _MESSAGES if part in text), _OTHERS)
    is_other_version = message in {OTHER_VERSION, _HTTP_2}
    return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED if is_other_version else HTTPStatus.BAD_REQUEST, message
