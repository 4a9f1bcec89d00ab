"""Subscriptions of the graph: an account's operations and its balance."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import strawberry

from kit.rpc.channel import reconnecting_stream
from subgraphs.analytics import client
from subgraphs.analytics.graph.context import Clients, Info
from subgraphs.analytics.graph.types import BalanceUpdate, Operation
from wallet import cursor, inputs
from wallet.graph import Money


@strawberry.type
class Subscription:
    @strawberry.subscription(
        description="The account's operations after a cursor, then new ones, in order, without gaps or repeats. "
        "Without a cursor, new operations only.",
    )
    async def operation_added(
        self,
        info: Info,
        account_id: strawberry.ID,
        after: str | None = None,
    ) -> AsyncGenerator[Operation, None]:
        with inputs.FieldParser() as fields:
            account = fields.parse("accountId", inputs.parse_uuid, account_id)
            position = None if not after else fields.parse("after", cursor.decode_position, after)
        async with aclosing(watch_operations(info.context, account, position)) as operations:
            async for operation in operations:
                yield Operation(source=operation)

    @strawberry.subscription(description="The account's current balance, then its balance after each operation.")
    async def balance_changed(self, info: Info, account_id: strawberry.ID) -> AsyncGenerator[BalanceUpdate, None]:
        with inputs.FieldParser() as fields:
            account = fields.parse("accountId", inputs.parse_uuid, account_id)
        present = await info.context.bank.get_balance(account)
        position = cursor.HistoryPosition(present.version, present.epoch)
        yield BalanceUpdate(balance=Money.from_money(present.amount), cursor=cursor.encode_version(*position))
        async with aclosing(watch_operations(info.context, account, position)) as operations:
            async for operation in operations:
                yield BalanceUpdate(
                    balance=Money.from_money(operation.balance_after),
                    cursor=cursor.encode_version(operation.account_version, operation.epoch),
                )


async def watch_operations(
    context: Clients, account_id: UUID, after: cursor.HistoryPosition | None
) -> AsyncGenerator[client.Operation, None]:
    """Yield an account's operations after the position `after`; without it, new operations only.

    A reconnected stream continues after the last operation that was yielded. A stream of new operations first reports
    the account's version at which it starts. If the stream fails before it has reported the version, the reconnected
    stream starts at the account's current version in the bank.
    """
    is_reconnect = False

    async def open_stream() -> AsyncGenerator[client.Operation, None]:
        nonlocal after, is_reconnect
        if after is None and is_reconnect:
            balance = await context.bank.get_balance(account_id)
            after = cursor.HistoryPosition(balance.version, balance.epoch)
        is_reconnect = True
        values: AsyncGenerator[client.Operation | client.StreamStart, None]
        if after is None:
            values = context.analytics.watch_new_operations(account_id)
        else:
            values = context.analytics.watch_operations(account_id, after.version, after.epoch)
        async with aclosing(values):
            async for value in values:
                if isinstance(value, client.StreamStart):
                    after = cursor.HistoryPosition(value.version, value.epoch)
                else:
                    after = cursor.HistoryPosition(value.account_version, value.epoch)
                    yield value

    async with aclosing(reconnecting_stream(open_stream)) as operations:
        async for operation in operations:
            yield operation
