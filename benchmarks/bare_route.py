"""Baseline for the gateway's benchmarks: `python -m benchmarks.bare_route host:port target`.

Do not change it, so that results of different releases can be compared.
A FastAPI application with one route, which calls the bank with gRPC's generated stub and returns a model. It has no
authentication, limits, logs or error handling, and uses no code of this project except the generated stub.
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

_NANOS_PER_CENT: Final = 10_000_000


class TransferRequest(BaseModel):
    """Request body."""

    recipientId: UUID  # noqa: N815  name in the JSON
    amount: str
    currency: str = "RUB"


class Transfer(BaseModel):
    """Response body."""

    id: UUID
    senderId: UUID  # noqa: N815
    recipientId: UUID  # noqa: N815
    amount: str
    currency: str
    createdAt: datetime  # noqa: N815


def app(target: str) -> FastAPI:
    """Return the application with its route, which calls the bank at a gRPC target."""
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
        response = await stubs[0].TransferMoney(
            bank_pb2.TransferMoneyRequest(
                sender_id=str(account_id),
                recipient_id=str(body.recipientId),
                amount=Money(currency_code=body.currency, units=int(units), nanos=int(cents or 0) * _NANOS_PER_CENT),
                idempotency_key=idempotency_key,
            ),
        )
        created = response.transfer
        return Transfer(
            id=created.id,
            senderId=created.sender_id,
            recipientId=created.recipient_id,
            amount=f"{created.amount.units}.{created.amount.nanos // _NANOS_PER_CENT:02}",
            currency=created.amount.currency_code,
            createdAt=created.created_at.ToDatetime(tzinfo=UTC),
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
