"""Stubs of the services behind the gateway and of a trace collector.

`python -m benchmarks.service_stubs host:port [users.jwks.json]` serves all of them. They respond at once with fixed
data, so that a figure measures the gateway and not the services. No money moves.

The only tokens that they verify are those of the items of ForwardTransfers, each of which belongs to another caller.
They verify the signature, the lifetime and the claims, but neither the roles nor the gateway's own token. Without the
file of the users' public keys, the bank's stub does not have ForwardTransfers, like a bank of an older release.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from benchmarks.accounts import account_id
from benchmarks.environment import AUDIENCE, ISSUER
from kit.auth.keys import KeySet
from kit.auth.principal import TokenVerifier
from kit.rpc.status import error_to_status
from protos.wallet.analytics.v1 import analytics_pb2
from protos.wallet.bank.v1 import bank_pb2
from wallet.errors import Unauthenticated, WalletError

PAGE_SIZE: Final = 1_000
"""Number of operations of every page."""
ACCOUNT: Final = account_id(0)
"""Account of the operations."""

_EXPORT_TRACES: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_NOW: Final = Timestamp(seconds=1_750_000_000, nanos=123_456_000)
_TRANSFER: Final = bank_pb2.TransferMoneyResponse(
    transfer=bank_pb2.Transfer(
        id="01a1fc68-ad44-74c3-a6d6-42556a5c7775",
        kind=bank_pb2.TRANSFER_KIND_TRANSFER,
        sender_id=ACCOUNT,
        recipient_id=account_id(1),
        amount=Money(currency_code="RUB", units=1),
        created_at=_NOW,
    ),
    sender_balance=Money(currency_code="RUB", units=999),
    sender_version=1,
)
_OPERATIONS: Final = analytics_pb2.GetOperationsResponse(
    operations=[
        analytics_pb2.Operation(
            id=f"01a1fc68-ad44-74c3-a6d6-{version:012x}",
            account_id=ACCOUNT,
            account_version=version,
            type=analytics_pb2.OPERATION_TYPE_TRANSFER,
            direction=analytics_pb2.DIRECTION_IN if version % 2 else analytics_pb2.DIRECTION_OUT,
            amount=Money(currency_code="RUB", units=version % 100 + 1, nanos=500_000_000),
            balance_after=Money(currency_code="RUB", units=1_000 + version),
            counterparty_id=account_id(version),
            occurred_at=Timestamp(seconds=_NOW.seconds + version, nanos=_NOW.nanos),
        )
        for version in range(PAGE_SIZE, 0, -1)
    ],
    has_older=True,
)


@lru_cache
def _accounts_response(request: bytes) -> bytes:
    """Return an open account for each id of the request."""
    ids = bank_pb2.BatchGetAccountsRequest.FromString(request).ids
    return bank_pb2.BatchGetAccountsResponse(
        results=[
            bank_pb2.BatchGetAccountsResponse.Result(
                key=id_,
                value=bank_pb2.Account(
                    id=id_,
                    balance=Money(currency_code="RUB", units=999),
                    version=PAGE_SIZE,
                    created_at=_NOW,
                    updated_at=_NOW,
                    status=bank_pb2.ACCOUNT_STATUS_OPEN,
                ),
            )
            for id_ in ids
        ],
    ).SerializeToString()


async def _get_accounts(request: bytes, _context: object) -> bytes:
    return _accounts_response(request)


def _constant_handler(response: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    serialized = response.SerializeToString()

    async def handle(_request: bytes, _context: object) -> bytes:
        return serialized  # type: ignore[no-any-return]  # a message of any type

    return grpc.unary_unary_rpc_method_handler(handle)


class _Forwarding:
    """ForwardTransfers of the bank's stub: one response with the results of all items."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def forward(
        self, request: bank_pb2.ForwardTransfersRequest, _context: object
    ) -> AsyncIterator[bank_pb2.ForwardTransfersResponse]:
        response = bank_pb2.ForwardTransfersResponse(process_id="stub")
        for index, item in enumerate(request.items):
            try:
                await self._verify(item.token)
            except WalletError as error:
                response.results.add(index=index, error=error_to_status(error))
            else:
                value = response.results.add(index=index).value
                value.CopyFrom(_TRANSFER)
                value.transfer.sender_id = item.transfer.sender_id
                value.transfer.recipient_id = item.transfer.recipient_id
                value.transfer.amount.CopyFrom(item.transfer.amount)
        yield response

    async def _verify(self, token: str) -> None:
        if not token:
            raise Unauthenticated
        await self._verifier.verify(token)


class _StubHandlers(grpc.GenericRpcHandler):
    def __init__(self, verifier: TokenVerifier | None) -> None:
        """Args:
        verifier: verifies the tokens of forwarded transfers; None: there are none.
        """
        self._methods = {
            "/wallet.bank.v1.BankService/TransferMoney": _constant_handler(_TRANSFER),
            "/wallet.bank.v1.BankService/BatchGetAccounts": grpc.unary_unary_rpc_method_handler(_get_accounts),
            "/wallet.analytics.v1.AnalyticsService/GetOperations": _constant_handler(_OPERATIONS),
            _EXPORT_TRACES: _constant_handler(ExportTraceServiceResponse()),
        }
        if verifier is not None:
            self._methods["/wallet.bank.v1.BankService/ForwardTransfers"] = grpc.unary_stream_rpc_method_handler(
                _Forwarding(verifier).forward,
                bank_pb2.ForwardTransfersRequest.FromString,
                bank_pb2.ForwardTransfersResponse.SerializeToString,
            )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        return self._methods.get(handler_call_details.method)


def _verifier(users: Path) -> TokenVerifier:
    return TokenVerifier(ISSUER, {ISSUER: KeySet.from_text(users.read_bytes())}, AUDIENCE)


async def _serve(listen: str, users: Path | None = None) -> None:
    server = grpc.aio.server(handlers=[_StubHandlers(_verifier(users) if users else None)])
    server.add_insecure_port(listen)
    await server.start()
    await asyncio.Event().wait()  # until the process is stopped


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], *map(Path, sys.argv[2:3])))
