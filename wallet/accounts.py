"""The accounts that the system itself has."""

from uuid import NAMESPACE_URL, UUID, uuid5


def clearing_account_id(currency: str) -> UUID:
    """The account of a currency that deposits come from; its balance is minus all that ever came in from outside."""
    return uuid5(NAMESPACE_URL, f"wallet:clearing:{currency}")
