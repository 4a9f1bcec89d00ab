"""Queries of the card subgraph."""

import strawberry

from subgraphs.card.graph.context import Info
from subgraphs.card.graph.types import TopUp
from wallet import inputs
from wallet.errors import TopUpNotFound


@strawberry.type
class Query:
    @strawberry.field(description="A top-up; null if it does not exist or the caller may not read it.")
    async def top_up(self, info: Info, id: strawberry.ID) -> TopUp | None:  # noqa: A002
        with inputs.FieldParser() as fields:
            top_up_id = fields.parse("id", inputs.parse_uuid, id)
        try:
            return TopUp.from_client(await info.context.top_ups.load(top_up_id))
        except TopUpNotFound:
            return None
