"""Queries of the bank's subgraph."""

import strawberry

from subgraphs.bank.graph.context import Info
from subgraphs.bank.graph.types import ACCOUNT_PAGES, Account, AccountConnection, Transfer, list_accounts
from wallet import inputs
from wallet.errors import AccountNotFound, TransferNotFound
from wallet.graph import PAGE_COST, PAGED, cost_directive


@strawberry.type
class Query:
    @strawberry.field(
        description=f"The caller's accounts in id order, closed accounts included. {ACCOUNT_PAGES}",
        directives=[cost_directive(PAGE_COST), PAGED],
    )
    async def accounts(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> AccountConnection | None:
        return await list_accounts(info, "", first, after, last, before)

    @strawberry.field(description="An account; null if it does not exist or the caller may not read it.")
    async def account(self, info: Info, id: strawberry.ID) -> Account | None:  # noqa: A002
        with inputs.FieldParser() as fields:
            account_id = fields.parse("id", inputs.parse_uuid, id)
        try:
            return Account.from_client(await info.context.accounts.load(account_id))
        except AccountNotFound:
            return None

    @strawberry.field(description="A transfer; null if it does not exist or the caller may not read it.")
    async def transfer(self, info: Info, id: strawberry.ID) -> Transfer | None:  # noqa: A002
        with inputs.FieldParser() as fields:
            transfer_id = fields.parse("id", inputs.parse_uuid, id)
        try:
            return Transfer.from_client(await info.context.transfers.load(transfer_id))
        except TransferNotFound:
            return None
