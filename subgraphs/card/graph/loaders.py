"""DataLoader of top-ups: it collects the ids of one event-loop tick into one RPC."""

from uuid import UUID

from strawberry.dataloader import DataLoader

from subgraphs.card import client
from subgraphs.card.client import CardClient
from wallet import loading

TopUpLoader = DataLoader[UUID, client.TopUp]


def top_up_loader(card: CardClient) -> TopUpLoader:
    """Create a loader of top-ups for one request."""
    return loading.batch_loader(card.batch_get_top_ups)
