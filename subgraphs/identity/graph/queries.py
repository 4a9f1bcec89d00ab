"""Queries of the identity subgraph."""

import strawberry

from kit.rpc import request_context
from subgraphs.identity.graph.types import User


@strawberry.type
class Query:
    @strawberry.field(description="The authenticated user: the subject of the access token.")
    async def me(self) -> User | None:
        return User(id=strawberry.ID(request_context.current_principal().subject))
