"""Accounts, and transfers between them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from gateway.rest.route import IdempotencyKey, Route
from openapi import models
from subgraphs.bank import client
from subgraphs.bank.client import BankClient
from wallet import inputs
from wallet.errors import TransferNotFound


def account_routes(bank: BankClient) -> APIRouter:
    """The routes below `/accounts` that the bank answers."""
    router = APIRouter(route_class=Route)

    @router.get("/accounts")
    async def list_accounts(
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50, after: UUID | None = None
    ) -> models.AccountPage:
        page = await bank.list_accounts(limit=limit, after=after)
        return models.AccountPage(accounts=[_account(each) for each in page.accounts], has_more=page.has_more)

    @router.post("/accounts", status_code=201)
    async def open_account(
        body: models.OpenAccountRequest, idempotency_key: IdempotencyKey, response: Response
    ) -> models.Account:
        account = await bank.open_account(body.currency, idempotency_key)
        response.headers["Location"] = f"/accounts/{account.id}"
        return _account(account)

    @router.get("/accounts/{accountId}")
    async def get_account(accountId: UUID) -> models.Account:  # noqa: N803  the contract's name
        return _account(await bank.get_account(accountId))

    @router.post("/accounts/{accountId}/transfers", status_code=201)
    async def create_transfer(
        accountId: UUID,  # noqa: N803  the contract's name
        body: models.TransferRequest,
        idempotency_key: IdempotencyKey,
        response: Response,
    ) -> models.Transfer:
        with inputs.FieldParser() as fields:
            amount = fields.parse_money(body.amount, body.currency)
        receipt = await bank.transfer(accountId, body.recipient_id, amount, idempotency_key)
        response.headers["Location"] = f"/accounts/{accountId}/transfers/{receipt.transfer.id}"
        return _transfer(receipt.transfer)

    @router.get("/accounts/{accountId}/transfers/{transferId}")
    async def get_transfer(accountId: UUID, transferId: UUID) -> models.Transfer:  # noqa: N803  the contract's names
        transfer = await bank.get_transfer(transferId)
        if accountId not in {transfer.sender_id, transfer.recipient_id}:
            raise TransferNotFound(str(transferId))
        return _transfer(transfer)

    return router


def _account(account: client.Account) -> models.Account:
    return models.Account(
        id=account.id,
        status=models.AccountStatus(account.status),
        balance=str(account.balance),
        currency=account.balance.currency,
        version=account.version,
        created_at=account.created_at,
        updated_at=account.updated_at,
    )


def _transfer(transfer: client.Transfer) -> models.Transfer:
    return models.Transfer(
        id=transfer.id,
        sender_id=transfer.sender_id,
        recipient_id=transfer.recipient_id,
        amount=str(transfer.amount),
        currency=transfer.amount.currency,
        created_at=transfer.created_at,
    )
