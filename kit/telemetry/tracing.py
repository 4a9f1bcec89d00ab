"""Where something stands in a trace, and spans: what is told of it, made by hand.

A trace travels as W3C's `traceparent` and `tracestate`. Whoever began it has decided whether it is sampled. One that is
not, or a process without a collector, costs no more than its id: OpenTelemetry is asked for what is sampled alone.

Spans say what was done, by the semantic conventions, and how it ended: never for whom, with what or how much. Whose
call it was stands in the log, on the lines with the trace's id.
"""

import re
import secrets
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
    """A place in a trace.

    Attributes:
        trace_id: of the trace, 32 hex digits.
        span_id: of the span that whatever comes next comes of, 16 hex digits; empty where nothing was done yet.
        flags: as W3C has them.
        tracestate: what others keep in it: W3C's `tracestate`.
    """

    trace_id: str
    span_id: str = ""
    flags: int = _RANDOM
    tracestate: str = ""

    @classmethod
    def new(cls) -> Self:
        """A trace that begins here; as many of them are sampled as the settings say."""
        id_ = secrets.token_hex(16)
        is_sampled = _recording.bound > 0 and int(id_[16:], 16) < _recording.bound
        return cls(id_, flags=_RANDOM | _SAMPLED if is_sampled else _RANDOM)

    @classmethod
    def from_traceparent(cls, parent: str | None, state: str | None = None) -> Self | None:
        """The place that the headers name; None where they name none."""
        found = _TRACEPARENT.fullmatch(parent or "")
        if found is None:
            return None
        version, id_, span_id, flags, more = found.groups()
        if version == "00" and more:
            return None
        state = state if state and _TRACESTATE.fullmatch(state) else ""
        return cls(id_, span_id, int(flags, 16) & _KNOWN_FLAGS, state)

    @property
    def is_sampled(self) -> bool:
        """Whether its spans are kept."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """As `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id or self.trace_id[:16]}-{self.flags:02x}"

    @property
    def sampled_traceparent(self) -> str | None:
        """As `traceparent`, for what is only told of to those who keep it."""
        return self.traceparent if self.is_sampled else None

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """As it travels on."""
        parent = ("traceparent", self.traceparent)
        return (parent, ("tracestate", self.tracestate)) if self.tracestate else (parent,)


class Span:
    """Something that is done for as long as the block lasts. An exception that ends the block is its error.

    Attributes:
        trace: where what comes of it stands.
    """

    __slots__ = ("_recorded", "trace")

    def __init__(self, trace: TraceContext, recorded: Recorded | None = None) -> None:
        self.trace = trace
        self._recorded = recorded

    @property
    def is_recorded(self) -> bool:
        """Whether anybody will know."""
        return self._recorded is not None

    def set_attributes(self, attributes: Attributes, *, name: str | None = None) -> None:
        """What is known of it only now."""
        if self._recorded is not None:
            self._recorded.set_attributes(attributes)
            if name is not None:
                self._recorded.update_name(name)

    def fail(self, error: str) -> None:
        """It went wrong, in a way that has this name. No message goes with it: it might quote what was asked for."""
        if self._recorded is not None:
            self._recorded.set_attribute("error.type", error)
            self._recorded.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """It is over."""
        if self._recorded is not None:
            self._recorded.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
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
    """A span of what is done from now on.

    Args:
        name: of few, and of nobody: a route rather than a path.
        parent: where what it comes of stands. Is that not sampled, nothing is recorded.
        kind: what it is to whoever is at its other end.
        attributes: by the semantic conventions.
        links: other places that it comes of.
    """
    if _recording.recorder is None or not parent.is_sampled:
        return Span(parent)
    recorded = _recording.recorder.start(name, parent, kind, attributes, links)
    return Span(parent._replace(span_id=f"{recorded.get_span_context().span_id:016x}"), recorded)


def start_batch_span(parents: Iterable[str | None], name: str, kind: SpanKind, attributes: Attributes) -> Span:
    """A span of what is done for many at once: it stands in the trace of the first that is sampled, and has a link to
    each. For none of them there is none.

    Args:
        parents: the `traceparent` of each, where it has one.
        name: as `start` has it, like the rest.
        kind: as above.
        attributes: as above.
    """
    if _recording.recorder is None:
        return Span(_NO_TRACE)
    links = [
        place
        for parent in dict.fromkeys(parents)
        if (place := TraceContext.from_traceparent(parent)) is not None and place.is_sampled
    ]
    return start_span(name, links[0], kind, attributes, links) if links else Span(_NO_TRACE)


_NO_TRACE: Final = TraceContext("0" * 32, flags=0)


class _Recording:
    """Who records the spans of this process, if anybody does, and how many of the traces that begin here."""

    recorder: "Recorder | None" = None
    bound = 0  # of the latter half of ids, as in OpenTelemetry's TraceIdRatioBased


_recording: Final = _Recording()


@contextmanager
def export_spans(service: str, settings: TracingSettings) -> Iterator[None]:
    """Has the spans of this process sent, if the settings say where to; at the end, the last of them within seconds."""
    if settings.otlp_endpoint is None:
        yield
        return
    from kit.telemetry.otlp import open_recorder  # noqa: PLC0415  a quarter of a second, for those who want it

    with open_recorder(service, settings) as recorder:
        _recording.recorder, _recording.bound = recorder, round(settings.trace_ratio * 2**64)
        try:
            yield
        finally:
            _recording.recorder, _recording.bound = None, 0
