"""Transfers over the bank's gRPC API, without the gateway."""

import time
from typing import Any, Final
from uuid import UUID

import grpc
from grpc.experimental.gevent import init_gevent

from kit.rpc import converters
from kit.rpc.status import error_from_rpc
from loadtests.history.calls import Answer, LedgerRequest, NoEffect, Receipt, UnknownOutcome, answer_from_outcome
from loadtests.plan import Customer
from loadtests.scenarios.users import TransferUser
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from wallet.money import Money

init_gevent()  # must precede the first channel; without it, a call blocks all users of the process

_NAME: Final = "gRPC transfer"
_TIMEOUT_SECONDS: Final = 10.0


class GrpcTransfers(TransferUser):
    """User that calls the bank directly, as the gateway does, with the customer's token."""

    def on_start(self) -> None:
        """Open a separate connection for the user."""
        super().on_start()
        self._channel = grpc.insecure_channel(self.plan.bank, [("grpc.use_local_subchannel_pool", 1)])
        self._stub: Any = bank_pb2_grpc.BankServiceStub(self._channel)

    def on_stop(self) -> None:
        """Close the connection."""
        self._channel.close()

    def transfer(self, request: LedgerRequest, sender: Customer) -> Answer | None:
        """Call `TransferMoney`."""
        return self.record(_NAME, lambda: self._call(request, sender), request)

    def _call(self, request: LedgerRequest, sender: Customer) -> Answer:
        message = bank_pb2.TransferMoneyRequest(
            sender_id=sender.account,
            recipient_id=str(request.body.recipient_id),
            amount=converters.money_to_proto(Money(request.body.amount, request.body.currency)),
            idempotency_key=request.key.key,
            description=request.body.description,
            reference=request.body.reference,
            is_reference_unique=request.body.is_reference_unique,
        )
        metadata = (("authorization", f"Bearer {sender.token}"),)
        began = time.perf_counter()
        failure: grpc.RpcError | None = None
        try:
            response = self._stub.TransferMoney(message, metadata=metadata, timeout=_TIMEOUT_SECONDS)
            answer: Answer = Receipt(
                UUID(response.transfer.id),
                request.body.sender_id,
                response.sender_version,
                converters.money_from_proto(response.sender_balance).amount,
                converters.money_from_proto(response.transfer.amount).amount,
                response.is_replay,
            )
        except grpc.RpcError as error:
            answer = answer_from_outcome(error_from_rpc(error, "the bank"))  # type: ignore[arg-type]  # also a grpc.Call
            failure = error if isinstance(answer, UnknownOutcome | NoEffect) else None
        duration_ms = 1_000 * (time.perf_counter() - began)
        self.environment.events.request.fire(
            request_type="gRPC",
            name=_NAME,
            response_time=duration_ms,
            response_length=0,
            exception=failure,
            context={},
        )
        return answer
