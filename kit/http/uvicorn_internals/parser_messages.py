"""Our messages for requests that httptools cannot parse. They replace those of llhttp, the parser in httptools."""

from typing import Final

_TLS_HANDSHAKE: Final = b"\x16\x03"
"""First bytes of a TLS connection."""

_FIELD: Final = (
    "send each field as one line `Name: value` that ends with CR LF: no space before the name or the colon, "
    "and no control character in it"
)
_MESSAGES: Final = (
    ("can't be present with", "send Content-Length or Transfer-Encoding, not both: they contradict each other"),
    ("content-length", "send one Content-Length, as the decimal number of bytes of the body"),
    ("header", _FIELD),
    ("chunk", "send each chunk as its size in hexadecimal, CR LF, as many bytes, and CR LF"),
    ("method", "start the request with a method in capital letters, such as GET"),
    ("url", "send the path in ASCII and percent-encoded, starting with /, with one space before and after it"),
    ("pri", "this server speaks HTTP/1.1: use HTTP/1.1, or connect through a proxy that speaks HTTP/2"),
    ("version", "end the first line of the request with HTTP/1.1 and CR LF"),
)
"""Pairs of a part of llhttp's message, in lower case, and our message. The first pair that matches is used."""

_TLS: Final = "this port speaks HTTP without TLS: use http://, or connect to the proxy that has the certificate"
_OTHERS: Final = (
    "send a request as in RFC 9112: a first line such as `GET / HTTP/1.1`, the fields, an empty line, the body"
)


def describe_parser_error(error: Exception, data: bytes | memoryview) -> str:
    """Return the message for a request that the parser has refused.

    It says what to send, and does not quote the request.

    Args:
        error: httptools' error.
        data: received data that the parser has refused.
    """
    if data[: len(_TLS_HANDSHAKE)] == _TLS_HANDSHAKE:
        return _TLS
    text = str(error).lower()
    return next((message for part, message in _MESSAGES if part in text), _OTHERS)
