"""DataLoader of users: it collects the ids of one event-loop tick into one RPC."""

from strawberry.dataloader import DataLoader

from subgraphs.identity import client
from subgraphs.identity.client import IdentityClient
from wallet import loading

UserLoader = DataLoader[str, client.User]


def user_loader(identity: IdentityClient) -> UserLoader:
    """Create a loader of users for one request."""
    return loading.batch_loader(identity.batch_get_users)
