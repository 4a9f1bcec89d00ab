"""Part of the request context that the resolvers use."""

from typing import Protocol
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from subgraphs.bank import client as bank
from subgraphs.card import client as card
from subgraphs.identity import client as identity


class Context(Protocol):
    """Loaders that the resolvers take from the request context. Each collects the ids of one event-loop tick."""

    @property
    def accounts(self) -> DataLoader[UUID, bank.Account]: ...

    @property
    def transfers(self) -> DataLoader[UUID, bank.Transfer]: ...

    @property
    def top_ups(self) -> DataLoader[UUID, card.TopUp]: ...

    @property
    def users(self) -> DataLoader[str, identity.User]: ...


Info = strawberry.Info[Context, None]
