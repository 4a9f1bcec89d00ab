"""The REST API of `openapi/openapi.yaml`: requests to calls, answers to the contract's models."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.routing import APIRoute

from gateway.bodies import MalformedError, decoded
from gateway.policy import REST
from kit import call
from openapi import models
from subgraphs.analytics import client as analytics
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank import client as bank
from subgraphs.bank.client import BankClient
from subgraphs.card import client as card
from subgraphs.card.client import CardClient
from wallet import cursor, inputs
from wallet.errors import InvalidInput, TopUpNotFound, TransferNotFound
from wallet.money import DEFAULT_CURRENCY

_IDEMPOTENCY_KEY: Final = r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"

IdempotencyKey = Annotated[
    str,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=_IDEMPOTENCY_KEY),
]
Amount = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}(\.[0-9]{1,4})?$")]


class UnsupportedMediaTypeError(Exception):
    """The body is not JSON."""


class _Route(APIRoute):
    """A route for those whom the policy admits, and what they send is JSON.

    Not by FastAPI's dependencies: each of these takes longer than what it would look at.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        rule = REST[" ".join((*(self.methods or ()), self.path))]  # one method each

        async def checked(request: Request) -> Response:
            if not rule.is_open:
                rule.check(call.principal())
            if request.method == "POST":
                if not _is_json(request.headers.get("content-type", "")):
                    raise UnsupportedMediaTypeError
                if body := await request.body():
                    request._json = _decoded(body)  # noqa: SLF001  what FastAPI is going to ask for
            return await handle(request)

        return checked


def _decoded(body: bytes) -> Any:
    try:
        return decoded(body)
    except MalformedError as error:
        raise InvalidInput.of("body", str(error)) from None


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def rest_routes(bank_client: BankClient, analytics_client: AnalyticsClient, card_client: CardClient) -> APIRouter:
    """The routes of the contract, over the services."""
    router = APIRouter(route_class=_Route)

    @router.get("/accounts/{accountId}")
    async def get_account(accountId: UUID) -> models.Account:  # noqa: N803  the contract's name
        return _account(await bank_client.account(accountId))

    @router.post("/accounts/{accountId}/transfers", status_code=201)
    async def create_transfer(
        accountId: UUID,  # noqa: N803  the contract's name
        body: models.TransferRequest,
        idempotency_key: IdempotencyKey,
        response: Response,
    ) -> models.Transfer:
        with inputs.Fields() as fields:
            amount = fields.money(body.amount, body.currency or DEFAULT_CURRENCY)
        receipt = await bank_client.transfer(accountId, body.recipient_id, amount, idempotency_key)
        response.headers["Location"] = f"/accounts/{accountId}/transfers/{receipt.transfer.id}"
        return _transfer(receipt.transfer)

    @router.get("/accounts/{accountId}/transfers/{transferId}")
    async def get_transfer(accountId: UUID, transferId: UUID) -> models.Transfer:  # noqa: N803  the contract's names
        transfer = await bank_client.get_transfer(transferId)
        if accountId not in {transfer.sender_id, transfer.recipient_id}:
            raise TransferNotFound(str(transferId))
        return _transfer(transfer)

    @router.post("/accounts/{accountId}/topup", status_code=202, response_model_exclude_none=True)
    async def create_top_up(
        accountId: UUID,  # noqa: N803  the contract's name
        body: models.TopUpRequest,
        idempotency_key: IdempotencyKey,
        response: Response,
    ) -> models.TopUp:
        with inputs.Fields() as fields:
            amount = fields.money(body.amount, body.currency or DEFAULT_CURRENCY)
            number = fields.read("card.number", inputs.digits, body.card.number.get_secret_value())
            cvv = fields.read("card.cvv", inputs.digits, body.card.cvv.get_secret_value())
        details = card.CardDetails(number, body.card.expiry_month, body.card.expiry_year, cvv)
        top_up = await card_client.top_up(accountId, amount, details, idempotency_key)
        response.headers["Location"] = f"/accounts/{accountId}/topups/{top_up.id}"
        return _top_up(top_up)

    @router.get("/accounts/{accountId}/topups/{topUpId}", response_model_exclude_none=True)
    async def get_top_up(accountId: UUID, topUpId: UUID) -> models.TopUp:  # noqa: N803  the contract's names
        top_up = await card_client.get(topUpId)
        if top_up.account_id != accountId:
            raise TopUpNotFound(str(topUpId))
        return _top_up(top_up)

    @router.get("/accounts/{accountId}/operations")
    async def list_operations(
        accountId: UUID,  # noqa: N803  the contract's name
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
        after: Annotated[str | None, Query(max_length=64)] = None,
        before: Annotated[str | None, Query(max_length=64)] = None,
        type: Annotated[list[models.OperationType] | None, Query()] = None,  # noqa: A002
        direction: models.Direction | None = None,
        counterpartyId: UUID | None = None,  # noqa: N803  the contract's name
        minAmount: Amount = None,  # noqa: N803
        maxAmount: Amount = None,  # noqa: N803
        from_: Annotated[datetime | None, Query(alias="from")] = None,
        to: datetime | None = None,
    ) -> models.OperationPage:
        if after is not None and before is not None:
            raise InvalidInput.of("before", "goes alone, without after")
        with inputs.Fields() as fields:
            older_than = None if after is None else fields.read("after", cursor.decode, after)
            newer_than = None if before is None else fields.read("before", cursor.decode, before)
        page = await analytics_client.operations(
            accountId,
            limit=limit,
            older_than=older_than,
            newer_than=newer_than,
            filter=analytics.OperationFilter(
                types=tuple(kind.value for kind in type or ()),
                direction=direction.value if direction else None,
                counterparty_id=counterpartyId,
                min_amount=minAmount,
                max_amount=maxAmount,
                from_=from_,
                to=to,
            ),
        )
        return models.OperationPage(
            operations=[_operation(operation) for operation in page.operations],
            has_older=page.has_older,
            has_newer=page.has_newer,
        )

    return router


def _account(account: bank.Account) -> models.Account:
    return models.Account(
        id=account.id,
        status=models.AccountStatus(account.status),
        balance=str(account.balance),
        currency=account.balance.currency,
        version=account.version,
        created_at=account.created_at,
        updated_at=account.updated_at,
    )


def _transfer(transfer: bank.Transfer) -> models.Transfer:
    return models.Transfer(
        id=transfer.id,
        sender_id=transfer.sender_id,
        recipient_id=transfer.recipient_id,
        amount=str(transfer.amount),
        currency=transfer.amount.currency,
        created_at=transfer.created_at,
    )


def _top_up(top_up: card.TopUp) -> models.TopUp:
    return models.TopUp(
        id=top_up.id,
        account_id=top_up.account_id,
        amount=str(top_up.amount),
        currency=top_up.amount.currency,
        status=models.TopUpStatus(top_up.status),
        card=models.Card(brand=models.CardBrand(top_up.card.brand), last_four=top_up.card.last_four),
        failure=top_up.failure,
        transfer_id=top_up.transfer_id,
        created_at=top_up.created_at,
        updated_at=top_up.updated_at,
    )


def _operation(operation: analytics.Operation) -> models.Operation:
    return models.Operation(
        id=operation.id,
        version=operation.account_version,
        type=models.OperationType(operation.type),
        direction=models.Direction(operation.direction),
        amount=str(operation.amount),
        currency=operation.amount.currency,
        balance_after=str(operation.balance_after),
        counterparty_id=operation.counterparty_id,
        occurred_at=operation.occurred_at,
        cursor=cursor.encode(operation.account_version),
    )
