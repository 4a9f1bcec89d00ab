"""Trace contexts (W3C `traceparent` and `tracestate`) and spans, created explicitly.

The process that starts a trace decides whether it is sampled. OpenTelemetry is called for sampled traces only.
We parse `traceparent` with a regular expression instead of OpenTelemetry's propagator, so that an unsampled request
has almost no cost.

Spans name the operation and its result as OpenTelemetry's semantic conventions require. They never have a caller, an
input or an amount. Log lines with the same trace id name the caller.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from opentelemetry.trace import Span as Recorded
from opentelemetry.trace import SpanKind, StatusCode

from kit.runtime.settings import TracingSettings

if TYPE_CHECKING:
    from kit.telemetry.otlp import Recorder

_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_TRACESTATE: Final = re.compile(r"[\x20-\x7e]{1,512}")
_SAMPLED: Final = 0x01
_RANDOM: Final = 0x02
_KNOWN_FLAGS: Final = _SAMPLED | _RANDOM

Attributes = Mapping[str, str | int]


class TraceContext(NamedTuple):
    """Position in a trace: the parent of new spans.

    Attributes:
        trace_id: 32 hex digits.
        span_id: id of the parent span, 16 hex digits; empty before the first span.
        flags: W3C trace flags.
        tracestate: `tracestate` header of the caller, passed on unchanged.
    """

    trace_id: str
    span_id: str = ""
    flags: int = _RANDOM
    tracestate: str = ""

    @classmethod
    def new(cls) -> Self:
        """Start a trace; `TRACE_RATIO` is the fraction that is sampled."""
        trace_id = os.urandom(16).hex()
        is_sampled = _recording.bound > 0 and int(trace_id[16:], 16) < _recording.bound
        return cls(trace_id, flags=_RANDOM | _SAMPLED if is_sampled else _RANDOM)

    @classmethod
    def from_traceparent(cls, parent: str | None, state: str | None = None) -> Self | None:
        """Parse the headers `traceparent` and `tracestate`; return None if there is no valid `traceparent`."""
        match = _TRACEPARENT.fullmatch(parent or "")
        if match is None:
            return None
        version, trace_id, span_id, flags, rest = match.groups()
        if version == "00" and rest:
            return None
        state = state if state and _TRACESTATE.fullmatch(state) else ""
        return cls(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, state)

    @property
    def is_sampled(self) -> bool:
        """Whether the spans of this trace are recorded."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """Value of the header `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id or self.trace_id[:16]}-{self.flags:02x}"

    @property
    def sampled_traceparent(self) -> str | None:
        """`traceparent` if the trace is sampled, otherwise None."""
        return self.traceparent if self.is_sampled else None

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers for the next call."""
        parent = ("traceparent", self.traceparent)
        return (parent, ("tracestate", self.tracestate)) if self.tracestate else (parent,)


class Span:
    """Span of the block that it manages. An exception that ends the block becomes the span's error.

    If the span is not recorded, all methods do nothing.

    Attributes:
        trace: trace context with this span as the parent.
    """

    __slots__ = ("_recorded", "trace")

    def __init__(self, trace: TraceContext, recorded: Recorded | None = None) -> None:
        self.trace = trace
        self._recorded = recorded

    @property
    def is_recorded(self) -> bool:
        """Whether the span is recorded and exported."""
        return self._recorded is not None

    @property
    def exemplar(self) -> dict[str, str] | None:
        """Labels that lead from a sample of a metric to the span; None if the span is not recorded."""
        if self._recorded is None:
            return None
        return {"trace_id": self.trace.trace_id, "span_id": self.trace.span_id}

    def set_attributes(self, attributes: Attributes, *, name: str | None = None) -> None:
        """Set attributes, and a new name if one is given."""
        if self._recorded is not None:
            self._recorded.set_attributes(attributes)
            if name is not None:
                self._recorded.update_name(name)

    def fail(self, error: str) -> None:
        """Mark the span as failed.

        Args:
            error: type of the error. Its message is left out, since it may quote the request.
        """
        if self._recorded is not None:
            self._recorded.set_attribute("error.type", error)
            self._recorded.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """End the span."""
        if self._recorded is not None:
            self._recorded.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._recorded is None:
            return
        if kind is not None and issubclass(kind, Exception):
            self.fail(kind.__name__)
        self.end()


def start_span(
    name: str,
    parent: TraceContext,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Attributes | None = None,
    links: Sequence[TraceContext] = (),
) -> Span:
    """Start a span.

    Args:
        name: name of the operation, with few distinct values and without personal data: a route, not a path.
        parent: parent trace context; if it is not sampled, the span is a no-op.
        kind: server, client, producer, consumer or internal.
        attributes: attributes, named as in OpenTelemetry's semantic conventions.
        links: further trace contexts that caused the operation.
    """
    if _recording.recorder is None or not parent.is_sampled:
        return Span(parent)
    recorded = _recording.recorder.start(name, parent, kind, attributes, links)
    return Span(parent._replace(span_id=f"{recorded.get_span_context().span_id:016x}"), recorded)


def start_batch_span(parents: Iterable[str | None], name: str, kind: SpanKind, attributes: Attributes) -> Span:
    """Start a span of an operation on a batch: a child of the first sampled trace, with links to all sampled traces.

    Args:
        parents: `traceparent` of each item in the batch, or None. If no trace is sampled, the span is a no-op.
        name: operation on the batch.
        kind: server, client, producer, consumer or internal.
        attributes: attributes, named as in OpenTelemetry's semantic conventions.
    """
    if _recording.recorder is None:
        return Span(_NO_TRACE)
    links = [
        trace
        for parent in dict.fromkeys(parents)
        if (trace := TraceContext.from_traceparent(parent)) is not None and trace.is_sampled
    ]
    return start_span(name, links[0], kind, attributes, links) if links else Span(_NO_TRACE)


_NO_TRACE: Final = TraceContext("0" * 32, flags=0)


class _Recording:
    """Recorder and sampling of this process."""

    recorder: "Recorder | None" = None
    bound = 0  # a trace is sampled if the second half of its id is below it, as in OpenTelemetry's TraceIdRatioBased


_recording: Final = _Recording()


@contextmanager
def export_spans(service: str, settings: TracingSettings) -> Iterator[None]:
    """Export the spans of this process during the block, if the settings name a collector; flush them at the end."""
    if settings.otlp_endpoint is None:
        yield
        return
    from kit.telemetry.otlp import open_recorder  # noqa: PLC0415  the import takes a quarter of a second

    with open_recorder(service, settings) as recorder:
        _recording.recorder, _recording.bound = recorder, round(settings.trace_ratio * 2**64)
        try:
            yield
        finally:
            _recording.recorder, _recording.bound = None, 0
