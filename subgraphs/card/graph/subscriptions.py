"""Subscriptions of the card subgraph."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import strawberry

from kit.rpc import channel
from subgraphs.card.graph.context import Info
from subgraphs.card.graph.types import TopUp
from wallet import inputs


@strawberry.type
class Subscription:
    @strawberry.subscription(
        description="The current state of a top-up, then its state after each change, until it is final."
    )
    async def top_up_updated(self, info: Info, id: strawberry.ID) -> AsyncGenerator[TopUp, None]:  # noqa: A002
        with inputs.FieldParser() as fields:
            top_up_id = fields.parse("id", inputs.parse_uuid, id)
        last_version = 0
        async with aclosing(channel.reconnecting_stream(lambda: info.context.card.watch_top_up(top_up_id))) as changes:
            async for top_up in changes:
                if top_up.version > last_version:  # a reopened stream starts with the last state of the previous one
                    last_version = top_up.version
                    yield TopUp.from_client(top_up)
