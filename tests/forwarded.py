"""Calls of ForwardTransfers, and the check that each item is decided for its own caller."""

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from protos.wallet.bank.v1 import bank_pb2

Item = bank_pb2.ForwardTransfersRequest.Item
Result = bank_pb2.ForwardTransfersResponse.Result

_OUTCOMES: Final = {16: "401", 7: "403", 5: "404"}
"""Names of gRPC status codes in the access table."""


def transfer_request(sender: object, recipient: object, key: str, units: int = 1) -> bank_pb2.TransferMoneyRequest:
    """Return the request of a transfer of whole roubles."""
    return bank_pb2.TransferMoneyRequest(
        sender_id=str(sender),
        recipient_id=str(recipient),
        amount={"currency_code": "RUB", "units": units},
        idempotency_key=key,
    )


def item(transfer: bank_pb2.TransferMoneyRequest, token: str, timeout_ms: int = 20_000, **fields: str) -> Item:
    """Return an item of ForwardTransfers."""
    return Item(transfer=transfer, token=token, timeout_ms=timeout_ms, **fields)


async def collect(responses: AsyncIterable[bank_pb2.ForwardTransfersResponse], size: int) -> list[Result]:
    """Return the results of a call in the order of its items; assert that each item has one result."""
    results = [result async for response in responses for result in response.results]
    assert sorted(result.index for result in results) == list(range(size))
    return sorted(results, key=lambda result: result.index)


def outcome(result: Result) -> str:
    """Return the outcome of an item: `ok`, an HTTP status, or the unexpected error."""
    if result.HasField("value"):
        return "ok"
    return _OUTCOMES.get(result.error.code, str(result.error))


async def assert_items_are_decided_for_their_own_callers(
    stub: Any,
    metadata: Sequence[tuple[str, str]],
    request: Callable[[str], bank_pb2.TransferMoneyRequest],
    tokens: Mapping[str, str],
    expected: Mapping[str, str],
) -> None:
    """Forward transfers of many callers in one call, each between two transfers of the owner.

    The owner and every other caller use the same idempotency key, with which the owner has moved money before. So the
    owner's items are replays, and an item that is decided for the owner, or gets a result of the owner's, is noticed.

    Args:
        stub: stub of the bank.
        metadata: metadata of the call, with the gateway's token.
        request: returns a transfer from the owner's account, with the given idempotency key.
        tokens: token of each caller; empty for an anonymous one. One of the callers is `owner`.
        expected: outcome of TransferMoney for each caller.
    """
    key = uuid4().hex
    owner = tokens["owner"]
    first = await stub.TransferMoney(request(key), metadata=(("authorization", f"Bearer {owner}"),))
    callers = ["owner"]
    for caller in tokens:
        callers += (caller, "owner")
    for _ in range(2):  # the second time, the bank has verified the valid tokens before
        items = [item(request(key), tokens[caller]) for caller in callers]
        call = stub.ForwardTransfers(bank_pb2.ForwardTransfersRequest(items=items), metadata=metadata, timeout=30)
        results = await collect(call, len(items))
        wrong = {}
        for caller, result in zip(callers, results, strict=True):
            is_owners = result.value.transfer.id == first.transfer.id
            as_expected = outcome(result) == expected[caller] and is_owners == (caller == "owner")
            if not as_expected or (is_owners and not result.value.is_replay):
                wrong[caller] = (outcome(result), "result of the owner" if is_owners else "own result")
            if caller != "owner" and first.transfer.id in str(result):
                wrong[caller] = (outcome(result), "quotes the owner's transfer")
        assert not wrong, wrong
