"""Structured logs: one event per line, as JSON for machines or as columns for people.

Each event has the service and, if there is a current request, its request id, trace id and caller.

Secrets are redacted twice. `redact_event` masks fields that are secret by name or by type. `redact_line` masks
everything that looks like a token or a card number in the rendered line, for secrets in error messages, paths and logs
of libraries. Tracebacks have no local variables, since those hold tokens and cards.

Our events do not pass through the standard library's logging. Each request writes a line, which would take three times
as long there. Libraries use the standard library's logging. Our events and the records of libraries are written to one
`LogSink`.

A log call never raises and never blocks. If an event cannot be rendered, its name and the type of the error are logged.
"""

import atexit
import contextlib
import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TextIO

import orjson
import structlog
from google.protobuf.message import Message
from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, WrappedLogger

from kit.rpc import request_context
from kit.runtime.settings import LogSettings
from kit.telemetry import metrics
from kit.telemetry.card_numbers import mask_card_numbers
from kit.telemetry.log_sink import LogSink, flush_logs

_MAX_LINE_BYTES: Final = 256 * 1024
_EXCERPT_BYTES: Final = 4 * 1024
"""Length of the excerpt that is logged in place of a line longer than `_MAX_LINE_BYTES`."""
_STANDARD_ERROR: Final = 2

log = structlog.get_logger(__name__)


def configure(service: str, settings: LogSettings) -> None:
    """Send the events of structlog and of the standard library's logging to standard error, in one format.

    Python's warnings, and errors that end the process or a thread, are logged too. The exit of the process flushes the
    log.

    Args:
        service: name of the process.
        settings: format and minimum level.
    """
    render = line_renderer(service, settings)

    def describe_loss(lost: int) -> bytes:
        return render(_SinkLogger(__name__, sink.write), "warning", {"event": "log lines lost", "lines": lost})

    _open_standard_descriptors()
    sink = LogSink(os.dup(_STANDARD_ERROR), describe_loss)
    metrics.count_lost_log_lines(lambda: sink.lost)
    structlog.configure(
        processors=[render],
        logger_factory=lambda *names: _SinkLogger(names[0] if names else None, sink.write),
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [SinkHandler(render, sink.write)]
    root.setLevel(settings.log_level)
    # aiokafka logs connection failures at ERROR several times a second; our reconnecting tasks log them once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # below WARNING, it logs each successful call
    _log_what_python_prints()
    atexit.register(flush_logs)


LineRenderer = Callable[[WrappedLogger, str, EventDict], bytes]
"""Processor of structlog: takes a logger, its method and an event, and returns the line of the event."""


def line_renderer(service: str, settings: LogSettings) -> LineRenderer:
    """Return the function that renders an event as one redacted line of limited length. It never raises."""

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
            escape_json,
        ]
        if settings.log_format == "json"
        else [
            escape_values,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr is not None and sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=_write_traceback,
            ),
            escape_line,
        ]
    )
    return _SafeRenderer([*shared, *renderers, redact_line])


def _open_standard_descriptors() -> None:
    """Open the null device in place of closed descriptors of standard input, output and error.

    Otherwise the next file or socket would get the number of a closed descriptor. Libraries that write to standard
    error would write into this file, and libuv aborts the process when it closes a descriptor with such a number.
    """
    for descriptor in range(_STANDARD_ERROR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)


def _log_what_python_prints() -> None:
    """Log the errors and warnings that Python would print to standard error: a print could block the process."""

    def log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, Exception):
            log.critical("process failed", exc_info=(kind, error, trace))
        else:
            sys.__excepthook__(kind, error, trace)

    def log_thread(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None:
            log.error("thread failed", thread=getattr(failure.thread, "name", None), exc_info=failure.exc_value)

    def log_unraisable(failure: "sys.UnraisableHookArgs") -> None:
        if failure.exc_value is not None:
            log.error("error in a finalizer", exc_info=failure.exc_value)

    sys.excepthook = log_uncaught
    threading.excepthook = log_thread
    sys.unraisablehook = log_unraisable
    logging.captureWarnings(capture=True)


class _SinkLogger:
    """Logger that structlog wraps: each of its methods writes a rendered line."""

    def __init__(self, name: str | None, write: Callable[[bytes], None]) -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = write
        self.warn = self.fatal = self.exception = self.msg = write


class _SafeRenderer:
    """Processor that runs other processors and returns a rendered line of limited length. It never raises."""

    def __init__(self, processors: Sequence[structlog.typing.Processor]) -> None:
        self._processors = processors

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        name = event.get("event")  # processors change the dictionary
        try:
            line = self._run(logger, method, event)
            if len(line) <= _MAX_LINE_BYTES:
                return line
            excerpt = line[:_EXCERPT_BYTES].decode(errors="replace")
            problem = {"log_error": f"line of {len(line)} bytes", "excerpt": excerpt}
        except Exception as error:  # noqa: BLE001  a log call never raises
            problem = {"log_error": type(error).__name__}
        with contextlib.suppress(Exception):
            event_name = name[:_EXCERPT_BYTES] if isinstance(name, str) else type(name).__name__
            return self._run(logger, method, {"event": event_name, **problem})
        return b"log line cannot be rendered"

    def _run(self, logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        line: Any = event
        for processor in self._processors:
            line = processor(logger, method, line)
        rendered: bytes = line
        return rendered


class SinkHandler(logging.Handler):
    """Handler of the standard library's logging: renders a record as structlog renders an event."""

    def __init__(self, render: LineRenderer, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._render = render
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:  # noqa: D102  see the base class
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001  wrong arguments: a log call never raises
            message = f"message with wrong arguments: {type(error).__name__}"
        event: EventDict = {"event": message}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        if record.stack_info:
            event["stack_info"] = record.stack_info
        self._write(self._render(_SinkLogger(record.name, self._write), record.levelname.lower(), event))


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
        case dict():  # before the other types, whose checks take ten times as long
            return {key: _MASK if _is_secret(key) else _redact_value(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            kind = tuple if isinstance(value, tuple) else list  # the standard library's exc_info must stay a tuple
            return kind(map(_redact_value, value))
        case Secret() | SecretStr() | SecretBytes():
            return _MASK
        case Message() | BaseModel():  # may contain anything
            return type(value).__name__
        case Mapping():
            return _redact_value(dict(value))
    return value


@lru_cache(maxsize=1_024)
def _is_secret(key: object) -> bool:
    """Return whether one of the words of a name marks a secret: `cardNumber`, `access_token`, `Set-Cookie`."""
    return isinstance(key, str) and not _SECRETS.isdisjoint(word.lower().rstrip("s") for word in _WORD.findall(key))


_UNSAFE: Final = r"\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
"""Control characters except tab, line feed (for tracebacks) and ESC; invisible characters; and characters that change
the direction of text or end a line."""
_CONTROL: Final = re.compile(rf"[{_UNSAFE}\x1b]")
_CONTROL_EXCEPT_COLORS: Final = re.compile(rf"[{_UNSAFE}]|\x1b(?!\[[\d;]*m)")


def escape_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape, in texts, the characters that could control a terminal, before the console format adds its colours."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = _CONTROL.sub(_escape, value)
    return event


def escape_line(_: WrappedLogger, __: str, line: Any) -> str:
    """Escape the control characters in a console line that come from values other than texts. Colours stay."""
    text: str = line
    if text.isprintable():  # the most frequent case
        return text
    return _CONTROL_EXCEPT_COLORS.sub(_escape, text)


def _write_traceback(output: TextIO, exc_info: Any) -> None:
    """Write a traceback without control characters. Messages of errors may quote a client."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    output.write(_CONTROL.sub(_escape, text.getvalue()))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004  as Python writes them


def escape_json(_: WrappedLogger, __: str, line: Any) -> bytes:
    """Escape the characters of a JSON line that JSON leaves unescaped and that could control a terminal."""
    encoded: bytes = line if isinstance(line, bytes) else line.encode()
    if encoded.isascii() and _DELETE not in encoded:  # the most frequent case
        return encoded
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()).encode()


_DELETE: Final = b"\x7f"
_TOKEN: Final = re.compile(rb"eyJ[\w-]*\.[\w-]+\.[\w-]*")


def redact_line(_: WrappedLogger, __: str, line: Any) -> bytes:
    """Replace what looks like a secret in a rendered line: a JSON Web Token by `***`, a card number by nines."""
    redacted: bytes = line if isinstance(line, bytes) else line.encode(errors="backslashreplace")
    if b"eyJ" in redacted:
        redacted = _TOKEN.sub(_MASK.encode(), redacted)
    return mask_card_numbers(redacted)


def _json(event: EventDict, **options: Any) -> bytes | str:
    try:
        return orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS, **options)
    except TypeError:  # such as a lone surrogate: log the event anyway
        return json.dumps(event, **options)
