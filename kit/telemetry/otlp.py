"""Spans on their way to a collector, by OTLP over gRPC: in bounded memory, in a thread of their own, and given up soon.

A collector that is away costs spans, and a line of log a minute.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from kit.runtime.settings import TracingSettings
from kit.telemetry.metrics import SPANS_DROPPED
from kit.telemetry.tracing import Attributes, TraceContext

_QUEUE: Final = 4_096
_BATCH: Final = 512
_PAUSE_MS: Final = 1_000
_LINKS: Final = 2_000
"""Of a span at most: as many as a batch of the consumer has messages."""
_EXPORT_SECONDS: Final = 3.0
_GRACE_SECONDS: Final = 1.0
_QUIET_SECONDS: Final = 60.0
_RATE_LIMITED_LOGGERS: Final = ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal")


class Recorder:
    """Begins spans of what was found worth them: which that is, was decided before."""

    def __init__(self, provider: TracerProvider, ids: "_Ids") -> None:
        self._tracer = provider.get_tracer("wallet")
        self._ids = ids

    def start(
        self,
        name: str,
        parent: TraceContext,
        kind: SpanKind,
        attributes: Attributes | None,
        links: Sequence[TraceContext],
    ) -> Span:
        """See `tracing.start`."""
        context = Context()
        if parent.span_id:
            context = set_span_in_context(NonRecordingSpan(_context(parent)), context)
        else:
            self._ids.next = int(parent.trace_id, 16)
        return self._tracer.start_span(name, context, kind, attributes, [Link(_context(each)) for each in links])


class _Ids(RandomIdGenerator):
    """A trace has its id before its first span: it is the request's."""

    next = 0

    def generate_trace_id(self) -> int:
        return self.next


class _Exporter(OTLPSpanExporter):
    """OpenTelemetry's, that counts what it drops, and at the end drops what would take long."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, timeout=_EXPORT_SECONDS)
        self.until = float("inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        late = time.monotonic() > self.until
        result = SpanExportResult.FAILURE if late else super().export(spans)
        if result is not SpanExportResult.SUCCESS:
            SPANS_DROPPED.inc(len(spans))
        return result


class _LogRateLimitFilter(logging.Filter):
    """Lets a line through a minute."""

    _quiet_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  whatever it says
        now = time.monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + _QUIET_SECONDS
        return True


@contextmanager
def open_recorder(service: str, settings: TracingSettings) -> Iterator[Recorder]:
    """What begins spans, which are sent to where the settings say for as long as the block lasts, and some seconds."""
    # Below, there is a line for each try, for each span that finds no room, and for each odd header of a caller's.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    seldom, loggers = _LogRateLimitFilter(), [logging.getLogger(name) for name in _RATE_LIMITED_LOGGERS]
    for logger in loggers:
        logger.addFilter(seldom)
    ids = _Ids()
    exporter = _Exporter(str(settings.otlp_endpoint))
    provider = TracerProvider(
        ALWAYS_ON,
        Resource.create({"service.name": service, "service.namespace": "wallet"}),
        shutdown_on_exit=False,
        id_generator=ids,
        span_limits=SpanLimits(max_links=_LINKS),
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, _QUEUE, _PAUSE_MS, _BATCH))
    try:
        yield Recorder(provider, ids)
    finally:
        exporter.until = time.monotonic() + _GRACE_SECONDS
        provider.shutdown()
        for logger in loggers:
            logger.removeFilter(seldom)


def _context(place: TraceContext) -> SpanContext:
    state = TraceState.from_header([place.tracestate]) if place.tracestate else None
    return SpanContext(int(place.trace_id, 16), int(place.span_id, 16), True, TraceFlags(place.flags), state)
