"""Route of an account's operations."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from gateway.rest.guarded_route import GuardedRoute
from gateway.rest.page_charge import ChargePage
from gateway.rest.times import DateTime
from kit.http.invalid_requests import WholeNumber
from kit.runtime.pauses import convert_all
from openapi import models
from subgraphs.analytics import client
from subgraphs.analytics.client import AnalyticsClient
from wallet import cursor, inputs
from wallet.errors import InvalidInput

Amount = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}(\.[0-9]{1,4})?$")]


def operation_routes(analytics: AnalyticsClient, charge_page: ChargePage) -> APIRouter:
    """Build the route of `/accounts/{accountId}/operations`.

    Args:
        analytics: gRPC client of analytics.
        charge_page: counts a large page as several requests.
    """
    router = APIRouter(route_class=GuardedRoute)

    @router.get("/accounts/{accountId}/operations", response_model_exclude_none=True)
    async def list_operations(
        accountId: UUID,  # noqa: N803  the contract's name
        limit: Annotated[WholeNumber, Query(ge=1, le=1_000)] = 50,
        after: Annotated[str | None, Query(max_length=128)] = None,
        before: Annotated[str | None, Query(max_length=128)] = None,
        type: Annotated[list[models.OperationType] | None, Query()] = None,  # noqa: A002
        direction: models.Direction | None = None,
        counterpartyId: UUID | None = None,  # noqa: N803  the contract's name
        minAmount: Amount = None,  # noqa: N803
        maxAmount: Amount = None,  # noqa: N803
        from_: Annotated[DateTime | None, Query(alias="from")] = None,
        to: DateTime | None = None,
        reference: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
        metadataKey: Annotated[str | None, Query(min_length=1, max_length=64)] = None,  # noqa: N803
        metadataValue: Annotated[str | None, Query(max_length=128)] = None,  # noqa: N803
        text: Annotated[str | None, Query(min_length=1, max_length=140)] = None,
    ) -> models.OperationPage:
        if after is not None and before is not None:
            raise InvalidInput.for_field("before", "must not be combined with after")
        with inputs.FieldParser() as fields:
            older_than = None if after is None else fields.parse("after", cursor.decode_position, after)
            newer_than = None if before is None else fields.parse("before", cursor.decode_position, before)
        operation_filter = client.OperationFilter(
            types=None if type is None else tuple(kind.value for kind in type),
            direction=direction.value if direction else None,
            counterparty_id=counterpartyId,
            min_amount=minAmount,
            max_amount=maxAmount,
            from_=from_,
            to=to,
            reference=reference,
            metadata=_parse_metadata(metadataKey, metadataValue),
            text=text,
        )
        await charge_page(limit)
        page = await analytics.list_operations(
            accountId,
            limit=limit,
            older_than=older_than and older_than.version,
            newer_than=newer_than and newer_than.version,
            epoch=edge.epoch if (edge := older_than or newer_than) else "",
            filter=operation_filter,
        )
        return models.OperationPage(
            operations=await convert_all(operation_to_rest, page.operations),
            has_older=page.has_older,
            has_newer=page.has_newer,
            is_complete=page.is_complete,
        )

    return router


def _parse_metadata(key: str | None, value: str | None) -> dict[str, str]:
    """Return the metadata of the filter.

    Raises:
        InvalidInput: one of the two parameters is missing.
    """
    if key is None and value is None:
        return {}
    if key is None:
        raise InvalidInput.for_field("metadataKey", "is required with metadataValue")
    if value is None:
        raise InvalidInput.for_field("metadataValue", "is required with metadataKey")
    return {key: value}


def operation_to_rest(operation: client.Operation) -> models.Operation:
    """Convert an operation to the contract's model."""
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
        cursor=cursor.encode_version(operation.account_version, operation.epoch),
        description=operation.description or None,
        reference=operation.reference or None,
        metadata=dict(operation.metadata) or None,
    )
