from subgraphs.card.client.client import (
    SERVICE,
    Card,
    CardClient,
    CardDetails,
    TopUp,
    TopUpPage,
)

__all__ = [
    "SERVICE",
    "Card",
    "CardClient",
    "CardDetails",
    "TopUp",
    "TopUpPage",
]
