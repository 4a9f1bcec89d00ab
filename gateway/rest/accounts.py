"""Routes of accounts."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.routing import BaseRoute

from gateway.errors import REPLAYED
from gateway.rest.direct_route import DirectRoute, json_response
from gateway.rest.guarded_route import GuardedRoute
from gateway.rest.idempotency_key import read_idempotency_key
from gateway.rest.page_charge import ChargePage
from kit.http.invalid_requests import WholeNumber
from kit.runtime.pauses import convert_all
from openapi import models
from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import inputs


def account_routes(bank: BankClient, charge_page: ChargePage) -> list[BaseRoute]:
    """Build the routes of `/accounts`.

    Args:
        bank: gRPC client of the bank.
        charge_page: counts a large page as several requests.
    """
    router = APIRouter(route_class=GuardedRoute)

    @router.get("/accounts", response_model_exclude_none=True)
    async def list_accounts(
        limit: Annotated[WholeNumber, Query(ge=1, le=1_000)] = 50, after: UUID | None = None
    ) -> models.AccountPage:
        await charge_page(limit)
        page = await bank.list_accounts(limit=limit, after=after)
        accounts = await convert_all(account_to_rest, page.accounts)
        return models.AccountPage(accounts=accounts, has_more=page.has_more)

    @router.post("/accounts", status_code=201, response_model_exclude_none=True)
    async def open_account(body: models.OpenAccountRequest, request: Request, response: Response) -> models.Account:
        with inputs.FieldParser() as fields:
            key = read_idempotency_key(request.headers, fields)
        opened = await bank.open_account(body.currency, key.text, raw_idempotency_key=key.raw)
        response.headers["Location"] = f"/accounts/{opened.account.id}"
        if opened.is_replay:
            response.headers.update(REPLAYED)
        return account_to_rest(opened.account)

    async def get_account(_: Request, accountId: UUID) -> Response:  # noqa: N803  the contract's name
        return json_response(account_to_rest(await bank.get_account(accountId)))

    @router.post("/accounts/{accountId}/close", response_model_exclude_none=True)
    async def close_account(accountId: UUID) -> models.Account:  # noqa: N803  the contract's name
        return account_to_rest(await bank.close_account(accountId))

    @router.post("/accounts/{accountId}/freeze", response_model_exclude_none=True)
    async def freeze_account(accountId: UUID, body: models.FreezeRequest) -> models.Account:  # noqa: N803
        return account_to_rest(await bank.freeze_account(accountId, body.frozen.value, body.reason))

    @router.post("/accounts/{accountId}/thaw", response_model_exclude_none=True)
    async def thaw_account(accountId: UUID, body: models.ThawRequest) -> models.Account:  # noqa: N803
        return account_to_rest(await bank.thaw_account(accountId, body.reason))

    @router.post("/accounts/{accountId}/floor", response_model_exclude_none=True)
    async def set_floor(accountId: UUID, body: models.SetFloorRequest) -> models.Account:  # noqa: N803
        with inputs.FieldParser() as fields:
            floor = fields.parse_money(body.floor, body.currency, "floor")
        return account_to_rest(await bank.set_account_floor(accountId, floor, body.reason))

    @router.get("/accounts/{accountId}/changes")
    async def list_changes(
        accountId: UUID,  # noqa: N803  the contract's name
        limit: Annotated[WholeNumber, Query(ge=1, le=1_000)] = 50,
        before: Annotated[WholeNumber | None, Query(ge=1, le=2**53 - 1)] = None,
    ) -> models.AccountChangePage:
        await charge_page(limit)
        changes = await bank.list_account_changes(accountId, limit=limit + 1, before=before)
        page = [change_to_rest(each) for each in changes[:limit]]
        return models.AccountChangePage(changes=page, has_more=len(changes) > limit)

    return [*router.routes, DirectRoute("GET", "/accounts/{accountId}", get_account)]


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
        frozen=models.AccountFreeze(account.frozen) if account.frozen else None,
        floor=None if account.floor is None else str(account.floor),
        available=None if account.available is None else str(account.available),
    )


def change_to_rest(change: client.AccountChange) -> models.AccountChange:
    """Convert a change of an account to the contract's model."""
    return models.AccountChange(
        revision=change.revision,
        action=models.Action(change.action),
        changed_by=change.changed_by,
        changed_at=change.changed_at,
        reason=change.reason,
        before=dict(change.before),
        after=dict(change.after),
    )
