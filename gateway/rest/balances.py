"""Route of an account's balance at a time or after a version."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from gateway.rest.guarded_route import GuardedRoute
from gateway.rest.times import DateTime
from kit.http.invalid_requests import WholeNumber
from openapi import models
from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet.errors import InvalidInput


def balance_routes(bank: BankClient) -> APIRouter:
    """Build the route of `/accounts/{accountId}/balance`.

    Args:
        bank: gRPC client of the bank.
    """
    router = APIRouter(route_class=GuardedRoute)

    @router.get("/accounts/{accountId}/balance", response_model_exclude_none=True)
    async def get_balance_at(
        accountId: UUID,  # noqa: N803  the contract's name
        at: DateTime | None = None,
        version: Annotated[WholeNumber | None, Query(ge=0, le=2**53 - 1)] = None,
    ) -> models.BalanceAt:
        if (at is None) == (version is None):
            raise InvalidInput.for_field("version" if at else "at", "give either `at` or `version`")
        return balance_to_rest(await bank.get_balance_at(client.BalanceRequest(accountId, version, at)))

    return router


def balance_to_rest(balance: client.BalanceAt) -> models.BalanceAt:
    """Convert a balance after an operation to the contract's model."""
    return models.BalanceAt(
        balance=str(balance.balance),
        currency=balance.balance.currency,
        version=balance.version,
        occurred_at=balance.occurred_at,
    )
