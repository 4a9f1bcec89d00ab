"""Trace contexts, sampling, spans and their export."""

import importlib.util
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind
from prometheus_client import REGISTRY
from pydantic import ValidationError

from kit.runtime.settings import TracingSettings
from kit.telemetry import otlp, tracing
from kit.telemetry.tracing import TraceContext
from stack.ports import HOST, free_ports
from tests.collector import Collector, run_collector
from tests.logs import own_warnings

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{ID}-{SPAN}-01"
SAMPLED = TraceContext(ID, SPAN, 1)


def settings(endpoint: str | None, ratio: float = 1) -> TracingSettings:
    return TracingSettings.model_validate({"otlp_endpoint": endpoint, "trace_ratio": ratio})


@pytest.fixture
def collector() -> Iterator[Collector]:
    with run_collector() as collector:
        yield collector


class TestTraceContext:
    def test_headers_are_parsed_and_written(self) -> None:
        trace = TraceContext.from_traceparent(PARENT, "rojo=00f067aa0ba902b7")
        assert trace == TraceContext(ID, SPAN, 1, "rojo=00f067aa0ba902b7")
        assert trace is not None
        assert (trace.headers, trace.is_sampled) == (
            (("traceparent", PARENT), ("tracestate", "rojo=00f067aa0ba902b7")),
            True,
        )

    @pytest.mark.parametrize(
        ("text", "is_sampled"),
        [(f"00-{ID}-{SPAN}-00", False), (f"00-{ID}-{SPAN}-03", True), (f"00-{ID}-{SPAN}-02", False)],
    )
    def test_sampling_decision_of_the_caller_is_kept(self, text: str, *, is_sampled: bool) -> None:
        trace = TraceContext.from_traceparent(text)
        assert trace is not None
        assert (trace.traceparent, trace.is_sampled) == (text, is_sampled)
        assert trace.sampled_traceparent == (text if is_sampled else None)

    def test_later_versions_are_parsed_as_version_00(self) -> None:
        for text in (f"01-{ID}-{SPAN}-01", f"cc-{ID}-{SPAN}-09-what-the-future-will-be-like"):
            assert TraceContext.from_traceparent(text) == SAMPLED

    @pytest.mark.parametrize(
        "text",
        [
            None,
            "",
            PARENT.upper(),
            PARENT + "-",
            PARENT + "\n",
            PARENT + "-more",
            f"ff-{ID}-{SPAN}-01",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{ID}-{'0' * 16}-01",
            f"00-{ID}-{SPAN}",
            f"cc-{ID}-{SPAN}-01.more",
            f"00-{ID[1:]}-{SPAN}-01",
            f"00-{ID}-{SPAN}-0x",
        ],
    )
    def test_invalid_traceparent_gives_no_context(self, text: str | None) -> None:
        assert TraceContext.from_traceparent(text) is None

    @given(st.text(max_size=80))
    def test_any_text_is_parsed_or_ignored(self, text: str) -> None:
        trace = TraceContext.from_traceparent(text, text)
        assert trace is None or TraceContext.from_traceparent(trace.traceparent) == trace._replace(tracestate="")

    @pytest.mark.parametrize("state", ["", "é", "a\nb", "x" * 513, "\0"])
    def test_invalid_tracestate_is_dropped(self, state: str) -> None:
        assert TraceContext.from_traceparent(PARENT, state) == SAMPLED

    def test_new_trace_has_a_valid_traceparent(self) -> None:
        first, second = TraceContext.new(), TraceContext.new()
        assert first.trace_id != second.trace_id
        assert TraceContext.from_traceparent(first.traceparent) is not None
        assert not first.is_sampled  # spans are not exported


class TestSampling:
    @pytest.mark.parametrize(("ratio", "least", "most"), [(0, 0, 0), (0.1, 60, 140), (1, 1000, 1000)])
    def test_fraction_of_new_traces_is_sampled(self, collector: Collector, ratio: float, least: int, most: int) -> None:
        with tracing.export_spans("test", settings(collector.endpoint, ratio)):
            sampled = sum(TraceContext.new().is_sampled for _ in range(1_000))
        assert least <= sampled <= most
        assert not TraceContext.new().is_sampled


class TestSpans:
    def test_spans_have_name_parent_attributes_and_error(self, collector: Collector) -> None:
        with tracing.export_spans("test", settings(collector.endpoint)):
            with tracing.start_span("outer", TraceContext(ID, SPAN, 3, "a=b"), SpanKind.SERVER, {"first": 1}) as outer:
                with tracing.start_span("inner", outer.trace):
                    pass
                outer.set_attributes({"second": "two"}, name="renamed")
            with pytest.raises(KeyError), tracing.start_span("broken", SAMPLED):
                raise KeyError("4242424242424242")
        spans = {each.name: each for each in collector.spans}
        assert spans.keys() == {"renamed", "inner", "broken"}
        outer_span, inner, broken = spans["renamed"], spans["inner"], spans["broken"]
        assert (outer_span.service, outer_span.kind, outer_span.parent) == ("test", "SERVER", (ID, SPAN))
        assert outer_span.attributes == {"first": 1, "second": "two"}
        assert (outer_span.span.trace_state, inner.span.trace_state) == ("a=b", "a=b")
        assert (inner.parent, inner.is_error) == (outer_span.context, False)
        assert (broken.is_error, broken.attributes) == (True, {"error.type": "KeyError"})
        assert "4242424242424242" not in str(collector.requests)

    def test_first_span_has_the_trace_id_and_no_parent(self, collector: Collector) -> None:
        with tracing.export_spans("test", settings(collector.endpoint)):
            traces = [TraceContext.new() for _ in range(3)]
            for trace in traces:
                tracing.start_span("root", trace).end()
        assert [each.context[0] for each in collector.spans] == [trace.trace_id for trace in traces]
        assert {each.parent for each in collector.spans} == {None}

    def test_batch_span_links_to_each_sampled_trace(self, collector: Collector) -> None:
        other, unsampled = TraceContext(SPAN * 2, SPAN, 1), TraceContext(ID, SPAN, 0)
        with tracing.export_spans("test", settings(collector.endpoint)):
            parents = [
                None,
                unsampled.traceparent,
                "nonsense",
                SAMPLED.traceparent,
                other.traceparent,
                SAMPLED.traceparent,
            ]
            tracing.start_batch_span(parents, "batch", SpanKind.CONSUMER, {}).end()
            tracing.start_batch_span([None, unsampled.traceparent], "nothing", SpanKind.CONSUMER, {}).end()
        (batch,) = collector.spans
        assert (batch.name, batch.context[0], batch.parent) == ("batch", ID, (ID, SPAN))
        assert batch.links == {(ID, SPAN), (other.trace_id, SPAN)}

    def test_unsampled_trace_has_no_spans_and_is_passed_on(self, collector: Collector) -> None:
        trace = TraceContext(ID, SPAN, 0, "a=b")
        with tracing.export_spans("test", settings(collector.endpoint)), tracing.start_span("unsampled", trace) as span:
            assert (span.trace, span.is_recorded) == (trace, False)
        assert not collector.spans

    def test_trace_context_is_kept_without_a_collector(self) -> None:
        with tracing.export_spans("test", settings(None)), tracing.start_span("no collector", SAMPLED) as span:
            span.set_attributes({"a": 1})
            span.fail("E")
            assert (span.trace, span.is_recorded) == (SAMPLED, False)


@contextmanager
def run_silent_server() -> Iterator[str]:
    """Accept connections without sending a response; yield the URL."""
    with socket.create_server((HOST, 0)) as server:
        yield f"http://{HOST}:{server.getsockname()[1]}"


def count_dropped_spans() -> float:
    return REGISTRY.get_sample_value("wallet_spans_dropped_total") or 0.0


class ExportCounter:
    """Counts finished exports. The exporter runs them in its own thread."""

    def __init__(self) -> None:
        self._ended = 0
        self._condition = threading.Condition()

    def wrap(self, export: Callable[..., SpanExportResult]) -> Callable[..., SpanExportResult]:
        """Return a function that calls `export` and counts the finished call."""

        def counting(*arguments: Any) -> SpanExportResult:
            result = export(*arguments)
            with self._condition:
                self._ended += 1
                self._condition.notify_all()
            return result

        return counting

    def wait_for(self, count: int) -> bool:
        """Wait for `count` finished exports. Return False after a minute."""
        with self._condition:
            return self._condition.wait_for(lambda: self._ended >= count, timeout=60)


class TestUnavailableCollector:
    @pytest.mark.parametrize("kind", ["connection refused", "no response"])
    def test_spans_that_cannot_be_exported_are_counted_and_logged_once_a_minute(
        self, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(otlp, "_EXPORT_INTERVAL_MS", 50)
        monkeypatch.setattr(otlp, "_EXPORT_TIMEOUT_SECONDS", 0.5)
        monkeypatch.setattr(otlp, "_SHUTDOWN_TIMEOUT_SECONDS", 0.2)
        for each in logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").filters:
            vars(each).pop("last_log", None)  # OpenTelemetry's own filter keeps state between tests
        exports = ExportCounter()
        monkeypatch.setattr(otlp._Exporter, "export", exports.wrap(otlp._Exporter.export))
        before = count_dropped_spans()
        with run_silent_server() as silent_endpoint, caplog.at_level(logging.DEBUG, "opentelemetry"):
            endpoint = silent_endpoint if kind == "no response" else f"http://{HOST}:{free_ports(1)[0]}"
            with tracing.export_spans("test", settings(endpoint)):
                for count in range(1, 4):
                    for _ in range(otlp._QUEUE_SPANS):
                        tracing.start_span("not exported", SAMPLED).end()
                    assert exports.wait_for(count), "the exporter did not export"
        assert count_dropped_spans() - before == 3 * otlp._QUEUE_SPANS  # including the spans that a full queue drops
        lines = own_warnings([], caplog.records)
        assert len(lines) == 1
        assert "Failed to export" in lines[0].getMessage()


class TestSettings:
    @pytest.mark.parametrize(
        "endpoint", ["http://127.0.0.1:4317", "http://localhost:4317", "http://[::1]:4317", "https://collector:4317"]
    )
    def test_collector_with_tls_or_on_loopback_is_accepted(self, endpoint: str) -> None:
        assert settings(endpoint).otlp_endpoint is not None

    @pytest.mark.parametrize("endpoint", ["http://collector:4317", "http://10.0.0.1:4317", "http://127.0.0.1.nip.io:1"])
    def test_plaintext_to_another_machine_needs_a_setting(self, endpoint: str) -> None:
        with pytest.raises(ValidationError, match="OTLP_INSECURE"):
            settings(endpoint)
        assert TracingSettings.model_validate({"otlp_endpoint": endpoint, "otlp_insecure": True}).otlp_endpoint


@pytest.mark.parametrize("name", otlp._RATE_LIMITED_LOGGERS)
def test_rate_limited_logger_is_a_module_of_opentelemetry(name: str) -> None:
    assert importlib.util.find_spec(name) is not None
