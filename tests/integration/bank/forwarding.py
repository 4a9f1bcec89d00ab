"""Calls of ForwardTransfers with the gateway's token."""

from typing import Any

from kit.rpc.status import error_from_status
from protos.wallet.bank.v1 import bank_pb2
from tests.forwarded import Item, Result, collect
from tests.integration.bank.harness import RunningBank
from wallet.errors import WalletError


def open_call(bank: RunningBank, *items: Item) -> Any:
    """Start a call with these items and the gateway's token."""
    request = bank_pb2.ForwardTransfersRequest(items=items)
    return bank.stub.ForwardTransfers(request, metadata=bank.service("gateway").metadata, timeout=30)


async def forward(bank: RunningBank, *items: Item) -> list[Result]:
    """Forward the items; return their results in order."""
    return await collect(open_call(bank, *items), len(items))


def error(result: Result) -> WalletError:
    assert result.HasField("error"), result
    return error_from_status(result.error)
