from subgraphs.card.graph.graph import (
    TopUpLoader,
    top_up_loader,
)

__all__ = [
    "TopUpLoader",
    "top_up_loader",
]
