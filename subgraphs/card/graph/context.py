"""Part of the request context that the resolvers use."""

from typing import Protocol

import strawberry

from subgraphs.card.client import CardClient
from subgraphs.card.graph.loaders import TopUpLoader, TopUpPageLoader


class Context(Protocol):
    """Attributes of the request context that the card resolvers use."""

    @property
    def card(self) -> CardClient: ...

    @property
    def top_ups(self) -> TopUpLoader: ...

    @property
    def top_up_pages(self) -> TopUpPageLoader: ...


Info = strawberry.Info[Context, None]
