"""Span exporter, OTLP over gRPC: a background thread, a bounded queue and short time-outs.

If the collector is unavailable, spans are dropped and counted, and one line a minute is logged.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
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

_QUEUE_SPANS: Final = 4_096
_BATCH_SPANS: Final = 512
_EXPORT_INTERVAL_MS: Final = 1_000
_MAX_LINKS: Final = 2_000
"""Maximum number of links of a span: the size of the largest batch of analytics' Kafka consumer."""
_EXPORT_TIMEOUT_SECONDS: Final = 3.0
_SHUTDOWN_TIMEOUT_SECONDS: Final = 1.0
_LOG_INTERVAL_SECONDS: Final = 60.0
_RATE_LIMITED_LOGGERS: Final = ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal")


class Recorder:
    """Starts spans of traces that are already sampled."""

    def __init__(self, provider: TracerProvider, ids: "_TraceIds") -> None:
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
        """Start a recorded span; see `tracing.start_span`."""
        context = Context()
        if parent.span_id:
            context = set_span_in_context(NonRecordingSpan(_span_context(parent)), context)
        else:
            self._ids.next = int(parent.trace_id, 16)
        return self._tracer.start_span(name, context, kind, attributes, [Link(_span_context(each)) for each in links])


class _TraceIds(RandomIdGenerator):
    """Returns the trace id that the request already has, instead of a random one."""

    next = 0

    def generate_trace_id(self) -> int:
        return self.next


class _Exporter(OTLPSpanExporter):
    """Exporter that counts dropped spans and stops exporting after the shutdown deadline."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, timeout=_EXPORT_TIMEOUT_SECONDS)
        self.deadline = float("inf")

        self.taken = 0  # spans that the processor has taken from its queue

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        is_late = time.monotonic() > self.deadline
        result = SpanExportResult.FAILURE
        try:
            if not is_late:
                result = super().export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                SPANS_DROPPED.inc(len(spans))
        return result


class _Processor(BatchSpanProcessor):
    """Processor that counts the spans for which its queue has no space: a collector that hangs fills the queue."""

    def __init__(self, exporter: _Exporter) -> None:
        super().__init__(exporter, _QUEUE_SPANS, _EXPORT_INTERVAL_MS, _BATCH_SPANS)
        self._exporter = exporter
        self._queued = 0

    def on_end(self, span: ReadableSpan) -> None:
        if self._queued - self._exporter.taken >= _QUEUE_SPANS:
            SPANS_DROPPED.inc()
            return
        self._queued += 1
        super().on_end(span)


class _LogRateLimitFilter(logging.Filter):
    """Log filter that passes one line a minute, counted over all loggers that have this filter."""

    _next_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  the signature of logging
        now = time.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + _LOG_INTERVAL_SECONDS
        return True


@contextmanager
def open_recorder(service: str, settings: TracingSettings) -> Iterator[Recorder]:
    """Open a recorder that exports spans to the collector of the settings; the end of the block flushes them."""
    # At lower levels, OpenTelemetry logs each attempt, each dropped span and each invalid header of a caller.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    rate_limit, loggers = _LogRateLimitFilter(), [logging.getLogger(name) for name in _RATE_LIMITED_LOGGERS]
    for logger in loggers:
        logger.addFilter(rate_limit)
    ids = _TraceIds()
    exporter = _Exporter(str(settings.otlp_endpoint))
    provider = TracerProvider(
        ALWAYS_ON,
        Resource.create({"service.name": service, "service.namespace": "wallet", "service.version": version("wallet")}),
        shutdown_on_exit=False,
        id_generator=ids,
        span_limits=SpanLimits(max_links=_MAX_LINKS),
    )
    provider.add_span_processor(_Processor(exporter))
    try:
        yield Recorder(provider, ids)
    finally:
        exporter.deadline = time.monotonic() + _SHUTDOWN_TIMEOUT_SECONDS
        provider.shutdown()
        for logger in loggers:
            logger.removeFilter(rate_limit)


def _span_context(trace: TraceContext) -> SpanContext:
    state = TraceState.from_header([trace.tracestate]) if trace.tracestate else None
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), True, TraceFlags(trace.flags), state)
