"""Routes of accounts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from gateway.rest.guarded_route import GuardedRoute, IdempotencyKey
from gateway.rest.page_charge import ChargePage
from openapi import models
from subgraphs.bank import client
from subgraphs.bank.client import BankClient


def account_routes(bank: BankClient, charge_page: ChargePage) -> APIRouter:
    """Build the routes of `/accounts`.

    Args:
        bank: gRPC client of the bank.
        charge_page: counts a large page as several requests.
    """
    router = APIRouter(route_class=GuardedRoute)

    @router.get("/accounts")
    async def list_accounts(
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50, after: UUID | None = None
    ) -> models.AccountPage:
        await charge_page(limit)
        page = await bank.list_accounts(limit=limit, after=after)
        return models.AccountPage(accounts=[account_to_rest(each) for each in page.accounts], has_more=page.has_more)

    @router.post("/accounts", status_code=201)
    async def open_account(
        body: models.OpenAccountRequest, idempotency_key: IdempotencyKey, response: Response
    ) -> models.Account:
        account = await bank.open_account(body.currency, idempotency_key)
        response.headers["Location"] = f"/accounts/{account.id}"
        return account_to_rest(account)

    @router.get("/accounts/{accountId}")
    async def get_account(accountId: UUID) -> models.Account:  # noqa: N803  the contract's name
        return account_to_rest(await bank.get_account(accountId))

    return router


def account_to_rest(account: client.Account) -> models.Account:
    """Convert an account to the contract's model."""
    return models.Account(
        id=account.id,
        status=models.AccountStatus(account.status),
        balance=str(account.balance),
        currency=account.balance.currency,
        version=account.version,
        created_at=account.created_at,
        updated_at=account.updated_at,
    )
