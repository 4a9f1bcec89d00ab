"""Typed gRPC client of the card service, for the gateway, other services and load tests."""

from subgraphs.card.client.client import SERVICE, CardClient
from subgraphs.card.client.types import Card, CardDetails, CreatedTopUp, TopUp, TopUpPage, TopUpPageRequest

__all__ = [
    "SERVICE",
    "Card",
    "CardClient",
    "CardDetails",
    "CreatedTopUp",
    "TopUp",
    "TopUpPage",
    "TopUpPageRequest",
]
