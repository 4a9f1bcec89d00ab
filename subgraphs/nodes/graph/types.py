"""Entities that have a node, by their ids only. The subgraphs that own them have the other fields.

`loaded` is the value that was loaded to find out whether the object exists. In the merged graph, the fields of the
other subgraphs use it, so it is not loaded again.
"""

import strawberry
from strawberry.federation.schema_directives import Key
from strawberry.federation.types import FieldSet

from subgraphs.bank import client as bank
from subgraphs.card import client as card
from subgraphs.identity import client as identity

_KEY = Key(fields=FieldSet("id"), resolvable=False)


@strawberry.federation.interface(
    description="An object that `node` returns by its id, as Relay's specification of global object identification "
    "requires."
)
class Node:
    id: strawberry.ID


@strawberry.federation.type(keys=[_KEY])
class Account(Node):
    id: strawberry.ID
    loaded: strawberry.Private[bank.Account | None] = None


@strawberry.federation.type(keys=[_KEY])
class Transfer(Node):
    id: strawberry.ID
    loaded: strawberry.Private[bank.Transfer | None] = None


@strawberry.federation.type(keys=[_KEY])
class TopUp(Node):
    id: strawberry.ID
    loaded: strawberry.Private[card.TopUp | None] = None


@strawberry.federation.type(keys=[_KEY])
class User(Node):
    id: strawberry.ID
    loaded: strawberry.Private[identity.User | None] = None
