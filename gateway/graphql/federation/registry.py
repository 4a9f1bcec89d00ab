"""Registry of the subgraphs. A new subgraph is imported and listed here."""

from types import ModuleType
from typing import Final

import subgraphs.analytics.graph
import subgraphs.bank.graph
import subgraphs.card.graph
import subgraphs.identity.graph
import subgraphs.nodes.graph

SUBGRAPHS: Final[dict[str, ModuleType]] = {
    "bank": subgraphs.bank.graph,
    "card": subgraphs.card.graph,
    "analytics": subgraphs.analytics.graph,
    "identity": subgraphs.identity.graph,
    "nodes": subgraphs.nodes.graph,
}
"""Graph packages by subgraph name. Each exports its root types (`Query`, `Mutation`, `Subscription`) and entity types.

If several subgraphs define `resolve_reference` of an entity, the first definition in this order is used.
"""
