"""Registry of the subgraphs. A new subgraph is one line here."""

from types import ModuleType
from typing import Final

import subgraphs.analytics.graph
import subgraphs.bank.graph
import subgraphs.card.graph
import subgraphs.identity.graph

SUBGRAPHS: Final[dict[str, ModuleType]] = {
    "bank": subgraphs.bank.graph,
    "card": subgraphs.card.graph,
    "analytics": subgraphs.analytics.graph,
    "identity": subgraphs.identity.graph,
}
"""Graph packages by subgraph name. Each exports `Query`, `Mutation`, `Subscription` and its entity types.

Where several subgraphs define `resolve_reference` of an entity, the first one in this order is used.
"""
