"""DataLoaders of top-ups and of pages of top-ups: each collects the keys of one event-loop tick into one RPC."""

from uuid import UUID

from strawberry.dataloader import DataLoader

from subgraphs.card import client
from subgraphs.card.client import CardClient
from wallet import loading

TopUpLoader = DataLoader[UUID, client.TopUp]
TopUpPageLoader = DataLoader[client.TopUpPageRequest, client.TopUpPage]


def top_up_loader(card: CardClient) -> TopUpLoader:
    """Create a loader of top-ups for one request."""
    return loading.batch_loader(card.batch_get_top_ups)


def top_up_page_loader(card: CardClient) -> TopUpPageLoader:
    """Create a loader of pages for one request."""
    return loading.batch_loader(card.batch_list_top_ups)
