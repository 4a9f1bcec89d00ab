"""Options of the GraphQL endpoints."""

from dataclasses import dataclass, field

from gateway.graphql.protection.limits import Limits, WebSocketLimits
from gateway.graphql.protection.trusted_documents import TrustedDocuments


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """Options of the graph.

    Attributes:
        limits: limits of the operations of each request.
        websocket_limits: limits of each WebSocket.
        documents: allow-list of the documents that are executed.
        streams: maximum number of open WebSockets and subscriptions of one caller.
        batch_limit: maximum number of requests in one array.
        production: introspection, suggestions in errors and GraphiQL are off.
        compiled: operations of cached documents are compiled; otherwise graphql-core executes all operations.
        federation: the merged graph is a federation subgraph, and each subgraph has a separate endpoint.
    """

    limits: Limits = field(default_factory=Limits)
    websocket_limits: WebSocketLimits = field(default_factory=WebSocketLimits)
    documents: TrustedDocuments = field(default_factory=lambda: TrustedDocuments(texts=None))
    streams: int = 200
    batch_limit: int = 10
    production: bool = False
    compiled: bool = True
    federation: bool = False
