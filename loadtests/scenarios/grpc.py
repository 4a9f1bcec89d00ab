"""Transfers by the bank's own gRPC, past the gateway."""

import time
from typing import Any, Final
from uuid import UUID

import grpc
from grpc.experimental.gevent import init_gevent

from kit.rpc import converters
from kit.rpc.status import error_from_rpc
from loadtests.history.calls import Answer, Nothing, Receipt, Unknown, Wish, answer_of
from loadtests.plan import Customer
from loadtests.scenarios.person import Payer
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from wallet.money import Money

init_gevent()  # before the first channel: without it a call stops every user of the process

_NAME: Final = "gRPC transfer"
_TIMEOUT_SECONDS: Final = 10.0


class GrpcTransfers(Payer):
    """What another service does that has a user's token."""

    def on_start(self) -> None:
        """A connection of their own."""
        super().on_start()
        self._channel = grpc.insecure_channel(self.plan.bank, [("grpc.use_local_subchannel_pool", 1)])
        self._stub: Any = bank_pb2_grpc.BankServiceStub(self._channel)

    def on_stop(self) -> None:
        """Hangs up."""
        self._channel.close()

    def transfer(self, wish: Wish, sender: Customer) -> Answer | None:
        """See `Payer`."""
        return self.record(_NAME, lambda: self._send(wish, sender), wish)

    def _send(self, wish: Wish, sender: Customer) -> Answer:
        request = bank_pb2.TransferMoneyRequest(
            sender_id=sender.account,
            recipient_id=str(wish.body.recipient_id),
            amount=converters.money_to_proto(Money(wish.body.amount, wish.body.currency)),
            idempotency_key=wish.key.key,
        )
        metadata = (("authorization", f"Bearer {sender.token}"),)
        began = time.perf_counter()
        error: grpc.RpcError | None = None
        try:
            told = self._stub.TransferMoney(request, metadata=metadata, timeout=_TIMEOUT_SECONDS)
            answer: Answer = Receipt(
                UUID(told.transfer.id),
                wish.body.sender_id,
                told.sender_version,
                converters.money_from_proto(told.sender_balance).amount,
                converters.money_from_proto(told.transfer.amount).amount,
            )
        except grpc.RpcError as refused:
            answer = answer_of(error_from_rpc(refused, "the bank"))  # type: ignore[arg-type]  # has all that is read
            error = refused if isinstance(answer, Unknown | Nothing) else None
        took = 1_000 * (time.perf_counter() - began)
        self.environment.events.request.fire(
            request_type="gRPC", name=_NAME, response_time=took, response_length=0, exception=error, context={}
        )
        return answer
