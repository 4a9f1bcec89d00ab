"""What the gateway is held against, frozen: `python -m benchmarks.bare_route host:port target`.

FastAPI with one route that makes the bank's call by gRPC's own stub and returns a model, as one would write it in an
afternoon. No tokens, no limits, no logs, no errors: nothing of ours.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

import grpc
import uvicorn
from fastapi import FastAPI, Header
from google.type.money_pb2 import Money
from pydantic import BaseModel

from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc

_NANOS_A_CENT: Final = 10_000_000


class TransferRequest(BaseModel):
    """What is asked for."""

    recipientId: UUID  # noqa: N815  as on the wire
    amount: str
    currency: str = "RUB"


class Transfer(BaseModel):
    """What was done."""

    id: UUID
    senderId: UUID  # noqa: N815
    recipientId: UUID  # noqa: N815
    amount: str
    currency: str
    createdAt: datetime  # noqa: N815


def app(target: str) -> FastAPI:
    """The one route, over the bank at a gRPC target."""
    stubs: list[Any] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(target) as channel:
            stubs.append(bank_pb2_grpc.BankServiceStub(channel))
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/accounts/{account_id}/transfers", status_code=201)
    async def transfer(
        account_id: UUID,
        body: TransferRequest,
        idempotency_key: Annotated[str, Header()],
    ) -> Transfer:
        units, _, cents = body.amount.partition(".")
        answer = await stubs[0].TransferMoney(
            bank_pb2.TransferMoneyRequest(
                sender_id=str(account_id),
                recipient_id=str(body.recipientId),
                amount=Money(currency_code=body.currency, units=int(units), nanos=int(cents or 0) * _NANOS_A_CENT),
                idempotency_key=idempotency_key,
            ),
        )
        made = answer.transfer
        return Transfer(
            id=made.id,
            senderId=made.sender_id,
            recipientId=made.recipient_id,
            amount=f"{made.amount.units}.{made.amount.nanos // _NANOS_A_CENT:02}",
            currency=made.amount.currency_code,
            createdAt=made.created_at.ToDatetime(tzinfo=UTC),
        )

    return app


if __name__ == "__main__":
    listen, target = sys.argv[1:]
    host, _, port = listen.rpartition(":")
    uvicorn.run(
        app(target),
        host=host,
        port=int(port),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
    )
