"""Queries of the nodes subgraph.

An id does not tell the type of its object (ADR 46), so each id is looked up in all services at once. The loaders
combine the lookups of all ids of a request: one call for each type.
"""

import asyncio
from typing import Any, Final
from uuid import UUID

import strawberry

from kit.rpc import request_context
from subgraphs.nodes.graph.context import Context, Info
from subgraphs.nodes.graph.types import Account, Node, TopUp, Transfer, User
from wallet import inputs
from wallet.errors import (
    AccountNotFound,
    InvalidInput,
    TopUpNotFound,
    TransferNotFound,
    UserNotFound,
)
from wallet.graph import cost_directive, list_size_directive

MAX_NODES: Final = 100
"""Maximum number of ids of `nodes`."""

_LOOKUP_COST: Final = 40
"""`@cost` of one id: four resolvers that wait for a loader."""

_NOT_FOUND: Final = (AccountNotFound, TransferNotFound, TopUpNotFound, UserNotFound)


@strawberry.type
class Query:
    @strawberry.field(
        description="The account, transfer, top-up or user with this id; null if it does not exist or the caller may "
        "not read it.",
        directives=[cost_directive(_LOOKUP_COST)],
    )
    async def node(self, info: Info, id: strawberry.ID) -> Node | None:  # noqa: A002
        return await _find_node(info.context, "id", id)

    @strawberry.field(
        description=f"The objects with these ids, at most {MAX_NODES}, in the order of the ids; null for each id "
        "without an object that the caller may read.",
        directives=[cost_directive(_LOOKUP_COST), list_size_directive(MAX_NODES)],
    )
    async def nodes(self, info: Info, ids: list[strawberry.ID]) -> list[Node | None]:
        if len(ids) > MAX_NODES:
            raise InvalidInput.for_field("ids", f"must have at most {MAX_NODES} entries")
        # An item that is an awaitable has its own path and error; the items are resolved concurrently.
        items: list[Any] = [_find_node(info.context, "ids", each) for each in ids]
        return items


async def _find_node(context: Context, field: str, id_: str) -> Node | None:
    """Return the object with this id, or None.

    Raises:
        InvalidInput: the id is not a UUID.
        WalletError: no service has the object, and one of them gave no response.
    """
    if id_ == request_context.current_principal().subject:
        return User(id=strawberry.ID(id_))  # it may be no UUID, and unknown to the identity service
    with inputs.FieldParser() as fields:
        uuid = fields.parse(field, inputs.parse_uuid, id_)
    found = await asyncio.gather(
        _find_account(context, uuid),
        _find_transfer(context, uuid),
        _find_top_up(context, uuid),
        _find_user(context, uuid),
        return_exceptions=True,
    )
    failure: BaseException | None = None
    for each in found:
        if isinstance(each, Node):
            return each
        if isinstance(each, BaseException) and not isinstance(each, _NOT_FOUND):
            failure = failure or each
    if failure is not None:
        raise failure
    return None


async def _find_account(context: Context, id_: UUID) -> Account:
    return Account(id=strawberry.ID(str(id_)), loaded=await context.accounts.load(id_))


async def _find_transfer(context: Context, id_: UUID) -> Transfer:
    return Transfer(id=strawberry.ID(str(id_)), loaded=await context.transfers.load(id_))


async def _find_top_up(context: Context, id_: UUID) -> TopUp:
    return TopUp(id=strawberry.ID(str(id_)), loaded=await context.top_ups.load(id_))


async def _find_user(context: Context, id_: UUID) -> User:
    return User(id=strawberry.ID(str(id_)), loaded=await context.users.load(str(id_)))
