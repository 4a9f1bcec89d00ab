"""OTLP collector over gRPC that stores the received spans."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from stack.ports import HOST, free_ports
from tests.waiting import until


@dataclass(frozen=True)
class ReceivedSpan:
    """Received span with the name of its service."""

    service: str
    span: trace_pb2.Span

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def kind(self) -> str:
        return trace_pb2.Span.SpanKind.Name(self.span.kind).removeprefix("SPAN_KIND_")

    @property
    def context(self) -> tuple[str, str]:
        return self.span.trace_id.hex(), self.span.span_id.hex()

    @property
    def parent(self) -> tuple[str, str] | None:
        return (self.span.trace_id.hex(), self.span.parent_span_id.hex()) if self.span.parent_span_id else None

    @property
    def links(self) -> set[tuple[str, str]]:
        return {(link.trace_id.hex(), link.span_id.hex()) for link in self.span.links}

    @property
    def causes(self) -> set[tuple[str, str]]:
        """Span contexts of the parent and the links."""
        return self.links | ({self.parent} if self.parent else set())

    @property
    def attributes(self) -> dict[str, Any]:
        values = {each.key: each.value for each in self.span.attributes}
        return {key: getattr(value, str(value.WhichOneof("value"))) for key, value in values.items()}

    @property
    def is_error(self) -> bool:
        return self.span.status.code == trace_pb2.Status.STATUS_CODE_ERROR


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Collector service with all spans received so far."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    def Export(  # noqa: N802  OTLP's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[ReceivedSpan]:
        return [
            ReceivedSpan(
                next(each.value.string_value for each in group.resource.attributes if each.key == "service.name"), span
            )
            for request in self.requests
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def list_descendants(self, context: tuple[str, str]) -> list[ReceivedSpan]:
        """Return all descendants of a span context, by parents and links."""
        spans, found, reached = self.spans, [], {context}
        while new := [each for each in spans if each not in found and each.causes & reached]:
            found += new
            reached |= {each.context for each in new}
        return found

    async def until(self, condition: Callable[[], Any], within: float = 15) -> Any:
        """Wait until `condition` returns a truthy value, and return it."""

        async def look() -> Any:
            return condition()

        return await until(look, within=within)


@contextmanager
def run_collector() -> Iterator[Collector]:
    """Run a collector on a free port in separate threads, so that it works while a test blocks the event loop."""
    target = f"{HOST}:{free_ports(1)[0]}"
    collector = Collector(f"http://{target}")
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(target)
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
