"""A bank that moves no money: `python -m loadtests.bench.stub_bank host:port`.

It answers every call at once with one and the same transfer, and believes whoever calls: what is measured in front of
it is not the bank.
"""

import asyncio
import sys
from typing import Any, Final

import grpc
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from loadtests.bench.accounts import account_id
from protos.bank.v1 import bank_pb2

_ANSWER: Final = bank_pb2.TransferMoneyResponse(
    transfer=bank_pb2.Transfer(
        id="01a1fc68-ad44-74c3-a6d6-42556a5c7775",
        kind=bank_pb2.TRANSFER_KIND_TRANSFER,
        sender_id=account_id(0),
        recipient_id=account_id(1),
        amount=Money(currency_code="RUB", units=1),
        created_at=Timestamp(seconds=1_750_000_000, nanos=123_456_000),
    ),
    sender_balance=Money(currency_code="RUB", units=999),
    sender_version=1,
).SerializeToString()


class _Everything(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":  # noqa: ARG002
        return grpc.unary_unary_rpc_method_handler(_answer)


async def _answer(_request: bytes, _context: object) -> bytes:
    return _ANSWER


async def _serve(listen: str) -> None:
    server = grpc.aio.server(handlers=[_Everything()])
    server.add_insecure_port(listen)
    await server.start()
    await asyncio.Event().wait()  # until it is ended


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
