"""Route of batches of transfers."""

from typing import Annotated, Any, Final

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import problem_from_error
from gateway.http.batch_charge import charge_batch
from gateway.http.rate_limits import RateLimiter
from gateway.http.work_limits import WorkLimits, hold_body
from gateway.rest.direct_route import DirectRoute, json_response
from gateway.rest.invalid_fields import invalid_input
from gateway.rest.request_checks import parse_json, read_json_text
from gateway.rest.transfers import transfer_to_rest, words_from_rest
from kit.runtime.pauses import convert_all
from openapi import models
from subgraphs.bank import client
from subgraphs.bank.client import BankClient, Receipt
from wallet.errors import UNKNOWN_OUTCOMES, InvalidInput, WalletError
from wallet.idempotency_key import parse_idempotency_key
from wallet.inputs import FieldParser

PATH: Final = "/transfers/batch"

_MAX_TRANSFERS: Final = 1_000
_MAX_FIELDS: Final = 32
"""Fields of one transfer, those of its metadata included; or of the body. Each unknown field is an error, which takes
time.
"""


class _Batch(BaseModel):
    """`TransferBatchRequest` of the contract, whose transfers are validated one by one."""

    model_config = ConfigDict(extra="forbid")
    transfers: Annotated[list[Any], Len(1, _MAX_TRANSFERS)]


_BATCH: Final = TypeAdapter(_Batch)
_ITEM: Final = TypeAdapter(models.TransferBatchItem)


def transfer_batch_route(bank: BankClient, limiter: RateLimiter, work: WorkLimits) -> DirectRoute:
    """Build the route of `/transfers/batch`.

    Args:
        bank: gRPC client of the bank.
        limiter: counts a batch as one request for each transfer.
        work: limits of the work in progress of each client.
    """

    async def create_transfers(request: Request) -> Response:
        requests = await _read(request, work)
        await charge_batch(limiter, len(requests))
        results = await bank.batch_transfer_valid(requests)
        return json_response(models.TransferBatchResponse(results=await convert_all(result_to_rest, results)))

    return DirectRoute("POST", PATH, create_transfers)


async def _read(request: Request, work: WorkLimits) -> list[client.TransferRequest | InvalidInput]:
    """Return the transfers of a request, or the errors of those that are not valid.

    Raises:
        UnsupportedMediaTypeError: the content type is not JSON in UTF-8.
        InvalidInput: the body is not a batch.
    """
    text = await read_json_text(request, ",".join(request.headers.getlist("content-type")))
    async with hold_body(work.bodies, len(text)):
        value = parse_json(text)
        if isinstance(value, dict) and len(value) > _MAX_FIELDS:
            raise InvalidInput.for_field("body", f"must have at most {_MAX_FIELDS} fields")
        try:
            batch = _BATCH.validate_python(value)
        except ValidationError as error:
            errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_input=False)]
            raise invalid_input(errors, _Batch) from None
        return await convert_all(_request_from_rest, batch.transfers)


def _request_from_rest(value: Any) -> client.TransferRequest | InvalidInput:
    """Return the request for one transfer, or the error of one that is not valid."""
    if isinstance(value, dict):
        metadata = value.get("metadata")
        if len(value) + (len(metadata) if isinstance(metadata, dict) else 0) > _MAX_FIELDS:
            return InvalidInput.for_field("transfers", f"must have at most {_MAX_FIELDS} fields each")
    try:
        item = _ITEM.validate_python(value)
        with FieldParser() as fields:
            key = fields.parse("idempotencyKey", parse_idempotency_key, item.idempotency_key)
            amount = fields.parse_money(item.amount, item.currency)
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_input=False)]
        return invalid_input(errors, models.TransferBatchItem)
    except InvalidInput as error:
        return error
    return client.TransferRequest(item.sender_id, item.recipient_id, amount, key.text, key.raw, words_from_rest(item))


def result_to_rest(result: Receipt | WalletError) -> models.TransferResult:
    """Convert the result of one transfer to the contract's model."""
    if isinstance(result, Receipt):
        return models.TransferResult(
            outcome=models.TransferOutcome.succeeded,
            replayed=result.is_replay,
            transfer=transfer_to_rest(result.transfer),
        )
    is_unknown = isinstance(result, UNKNOWN_OUTCOMES)
    return models.TransferResult(
        outcome=models.TransferOutcome.unknown if is_unknown else models.TransferOutcome.refused,
        replayed=result.is_replay,
        problem=problem_from_error(result)[0],
    )
