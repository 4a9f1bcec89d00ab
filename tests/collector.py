"""A collector of traces, by OTLP over gRPC, that keeps what it is sent."""

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
class Seen:
    """A span, and the service that it is of."""

    service: str
    span: trace_pb2.Span

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def kind(self) -> str:
        return trace_pb2.Span.SpanKind.Name(self.span.kind).removeprefix("SPAN_KIND_")

    @property
    def place(self) -> tuple[str, str]:
        return self.span.trace_id.hex(), self.span.span_id.hex()

    @property
    def parent(self) -> tuple[str, str] | None:
        return (self.span.trace_id.hex(), self.span.parent_span_id.hex()) if self.span.parent_span_id else None

    @property
    def links(self) -> set[tuple[str, str]]:
        return {(link.trace_id.hex(), link.span_id.hex()) for link in self.span.links}

    @property
    def causes(self) -> set[tuple[str, str]]:
        """The places that it comes of."""
        return self.links | ({self.parent} if self.parent else set())

    @property
    def attributes(self) -> dict[str, Any]:
        values = {each.key: each.value for each in self.span.attributes}
        return {key: getattr(value, str(value.WhichOneof("value"))) for key, value in values.items()}

    @property
    def is_error(self) -> bool:
        return self.span.status.code == trace_pb2.Status.STATUS_CODE_ERROR


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """All that has come so far."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    def Export(  # noqa: N802  OTLP's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Seen]:
        return [
            Seen(next(each.value.string_value for each in of.resource.attributes if each.key == "service.name"), span)
            for request in self.requests
            for of in request.resource_spans
            for scope in of.scope_spans
            for span in scope.spans
        ]

    def come_of(self, place: tuple[str, str]) -> list[Seen]:
        """The spans that come of a place, by parents and by links, however far away."""
        spans, found, reached = self.spans, [], {place}
        while new := [each for each in spans if each not in found and each.causes & reached]:
            found += new
            reached |= {each.place for each in new}
        return found

    async def until(self, seen: Callable[[], Any], within: float = 15) -> Any:
        """The first truthy answer, as spans come."""

        async def look() -> Any:
            return seen()

        return await until(look, within=within)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port, in threads of its own: it answers also while a test does not."""
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
