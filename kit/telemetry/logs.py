"""Structured logs: one event per line, as JSON for machines or as columns for people.

Each event has the service and, if there is a current request, its request id, trace id and caller.

Secrets are redacted twice. `redact_event` masks fields that are secret by name or by type. `redact_line` masks all that
looks like a token or a card number in the rendered line, for secrets in error messages, paths and logs of libraries.
Tracebacks have no local variables, since those hold tokens and cards.

Our events are written to standard error directly, since each request is logged and the standard library's logging takes
three times as long. Libraries use the standard library's logging.
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
from wallet.luhn import has_valid_check_digit


def configure(service: str, settings: LogSettings) -> None:
    """Send the events of structlog and of the standard library's logging to standard error, in one format.

    Args:
        service: name of the process.
        settings: format and minimum level.
    """

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
    # aiokafka logs connection failures at ERROR several times a second; our reconnecting tasks log them once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # below WARNING, it logs each successful call


_MASK: Final = "***"
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_SECRETS: Final = frozenset(
    {"authorization", "cookie", "cvc", "cvv", "jwt", "number", "pan", "passwd", "password", "secret", "token"}
)
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def redact_event(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace values that are secret by name or by type with `***`, at any depth."""
    for key, value in event.items():
        if _is_secret(key):
            event[key] = _MASK
        elif type(value) not in _PLAIN:
            event[key] = _redact_value(value)
    return event


def _redact_value(value: Any) -> Any:
    match value:
        case _ if type(value) in _PLAIN:  # the most frequent case
            pass
        case Secret() | SecretStr() | SecretBytes():
            return _MASK
        case Message() | BaseModel():  # may contain anything
            return type(value).__name__
        case Mapping():
            return {key: _MASK if _is_secret(key) else _redact_value(each) for key, each in value.items()}
        case tuple():  # the standard library's exc_info must stay a tuple
            return tuple(map(_redact_value, value))
        case list() | set() | frozenset():
            return list(map(_redact_value, value))
    return value


@lru_cache(maxsize=1_024)
def _is_secret(key: object) -> bool:
    """Return whether one of the words of a name marks a secret: `cardNumber`, `access_token`, `Set-Cookie`."""
    return isinstance(key, str) and not _SECRETS.isdisjoint(word.lower().rstrip("s") for word in _WORD.findall(key))


_ZEROED: Final = bytes.maketrans(b"123456789", b"000000000")
_DIGITS: Final = b"0" * 13
_CARD: Final = re.compile(rb"(?<!\w)\d{13,19}(?!\w)")
_TOKEN: Final = re.compile(rb"eyJ[\w-]*\.[\w-]+\.[\w-]*")


def redact_line(_: WrappedLogger, __: str, line: Any) -> bytes:
    """Replace what looks like a secret in a rendered line.

    A JSON Web Token becomes `***`. The digits of a card number become nines, which are valid JSON in any place. Few
    other values match: ids rarely consist of digits only, and few long numbers have the check digit of a card.
    """
    redacted: bytes = line if isinstance(line, bytes) else line.encode(errors="backslashreplace")
    if b"eyJ" in redacted:
        redacted = _TOKEN.sub(_MASK.encode(), redacted)
    if _DIGITS in redacted.translate(_ZEROED):  # takes a tenth of the time of the pattern
        redacted = _CARD.sub(_redact_card, redacted)
    return redacted


def _redact_card(match: re.Match[bytes]) -> bytes:
    digits = match[0]
    return b"9" * len(digits) if has_valid_check_digit(digits.decode()) else digits


def _to_text(_: WrappedLogger, __: str, line: Any) -> str:
    text: str = line.decode()
    return text


def _json(event: EventDict, **options: Any) -> bytes | str:
    try:
        return orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS, **options)
    except TypeError:  # such as a lone surrogate: log the event anyway
        return json.dumps(event, **options)
