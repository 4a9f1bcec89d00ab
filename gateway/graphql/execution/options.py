"""What whoever runs the gateway may choose of its graph."""

from dataclasses import dataclass, field

from gateway.graphql.execution.documents import TrustedDocuments
from gateway.graphql.protection.limits import Limits, WebSocketLimits


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """How the graph is served.

    Attributes:
        limits: of each operation.
        websocket_limits: of each connection.
        documents: that are executed.
        streams: the most WebSockets and subscriptions that one caller may have open.
        batch_limit: the most requests that may come as one array.
        production: whether the graph keeps what is in it to itself: no introspection, no suggestions, no GraphiQL.
        federation: whether a federation router may compose what is here: the whole, or each subgraph by itself.
    """

    limits: Limits = field(default_factory=Limits)
    websocket_limits: WebSocketLimits = field(default_factory=WebSocketLimits)
    documents: TrustedDocuments = field(default_factory=lambda: TrustedDocuments(texts=None))
    streams: int = 200
    batch_limit: int = 10
    production: bool = False
    federation: bool = False
