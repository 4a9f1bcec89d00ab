"""Ids of the system's own accounts."""

from uuid import NAMESPACE_URL, UUID, uuid5


def clearing_account_id(currency: str) -> UUID:
    """Return the id of a currency's clearing account, the sender of all deposits in this currency."""
    return uuid5(NAMESPACE_URL, f"wallet:clearing:{currency}")
