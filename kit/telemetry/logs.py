"""Structured logs: one event a line, JSON for machines or columns for people. On each is the service, and whatever is
known of the call at hand: its id, its trace's, its caller.

A traceback says where, never what was at hand there: local variables hold tokens and cards. What is called a secret, or
is one by its type, is masked wherever it stands in an event; and in the line that comes of it, whatever looks like a
token or a card's number, wherever it is from: an error's message, a path, a library's own log.

Our own events go straight to standard error. The standard library's way there, which is for what others log, takes
three times as long, and there is a line for each request.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
import structlog
from google.protobuf.message import Message
from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, WrappedLogger

from kit.rpc import request_context
from kit.runtime.settings import LogSettings


def configure(service: str, settings: LogSettings) -> None:
    """Routes structlog and the standard library's logging through one renderer to standard error."""

    def add_context(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        current = request_context.current_request.get(None)
        if current is not None:
            event["request_id"] = current.request_id
            event["trace_id"] = current.trace.trace_id
            if current.principal is not None:
                event["caller"] = current.principal.subject
        return event

    shared: list[structlog.typing.Processor] = [
        redact_event,
        add_context,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor] = (
        [
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(_json),
        ]
        if settings.log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    )
    structlog.configure(
        processors=[*shared, *renderers, redact_line],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers, redact_line, _to_text],
        ),
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # aiokafka tells at ERROR, several times a second, what the reconnecting caller tells once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each call that goes well


_MASK: Final = "***"
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_SECRETS: Final = frozenset(
    {"authorization", "cookie", "cvc", "cvv", "jwt", "number", "pan", "passwd", "password", "secret", "token"}
)
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def redact_event(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The event with `***` for what is secret by its name or its type, however deep."""
    for key, value in event.items():
        if _is_secret(key):
            event[key] = _MASK
        elif type(value) not in _PLAIN:
            event[key] = _masked(value)
    return event


def _masked(value: Any) -> Any:
    match value:
        case _ if type(value) in _PLAIN:  # which most are
            pass
        case Secret() | SecretStr() | SecretBytes():
            return _MASK
        case Message() | BaseModel():  # whatever it has in it
            return type(value).__name__
        case Mapping():
            return {key: _MASK if _is_secret(key) else _masked(each) for key, each in value.items()}
        case tuple():  # such as the standard library's exc_info, which has to stay one
            return tuple(map(_masked, value))
        case list() | set() | frozenset():
            return list(map(_masked, value))
    return value


@lru_cache(maxsize=1_024)
def _is_secret(key: object) -> bool:
    """Whether one of a name's words is one of theirs: `cardNumber`, `access_token`, `Set-Cookie`."""
    return isinstance(key, str) and not _SECRETS.isdisjoint(word.lower().rstrip("s") for word in _WORD.findall(key))


_ZEROED: Final = bytes.maketrans(b"123456789", b"000000000")
_DIGITS: Final = b"0" * 13
_CARD: Final = re.compile(rb"(?<!\w)\d{13,19}(?!\w)")
_TOKEN: Final = re.compile(rb"eyJ[\w-]*\.[\w-]+\.[\w-]*")


def redact_line(_: WrappedLogger, __: str, line: Any) -> bytes:
    """The line without what looks like a secret: `***` for a JSON Web Token, nines for the digits of a card's number,
    which are valid JSON wherever they stand. An id is hardly ever of digits alone, and a number of that length hardly
    ever passes for a card's by chance.
    """
    covered: bytes = line if isinstance(line, bytes) else line.encode(errors="backslashreplace")
    if b"eyJ" in covered:
        covered = _TOKEN.sub(_MASK.encode(), covered)
    if _DIGITS in covered.translate(_ZEROED):  # a tenth of what looking by the pattern takes
        covered = _CARD.sub(_covered, covered)
    return covered


def _covered(found: re.Match[bytes]) -> bytes:
    digits = found[0]
    return b"9" * len(digits) if _is_card(digits.decode()) else digits


def _is_card(digits: str) -> bool:
    """Whether the last digit is the check digit that the number of a card has (ISO/IEC 7812-1, annex B: Luhn)."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def _to_text(_: WrappedLogger, __: str, line: Any) -> str:
    text: str = line.decode()
    return text


def _json(event: EventDict, **options: Any) -> bytes | str:
    try:
        return orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS, **options)
    except TypeError:  # such as half a character: whatever is said, a log says it
        return json.dumps(event, **options)
