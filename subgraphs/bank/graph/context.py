"""Part of the request context that the resolvers use."""

from typing import Protocol

import strawberry

from subgraphs.bank.client import BankClient
from subgraphs.bank.graph.loaders import AccountLoader, AccountPageLoader, BalanceLoader, TransferLoader


class Context(Protocol):
    """Attributes of the request context that the bank's resolvers use."""

    @property
    def bank(self) -> BankClient: ...

    @property
    def accounts(self) -> AccountLoader: ...

    @property
    def account_pages(self) -> AccountPageLoader: ...

    @property
    def balances(self) -> BalanceLoader: ...

    async def charge_batch(self, items: int) -> None:
        """Count a batch with so many items as requests of the caller. Raises an error above the caller's limit."""

    @property
    def transfers(self) -> TransferLoader: ...


Info = strawberry.Info[Context, None]
