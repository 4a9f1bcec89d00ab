"""Converts between the client's values and `bank.proto` messages."""

from typing import Final, Literal
from uuid import UUID

from kit.rpc.converters import money_from_proto, money_to_proto, time_from_proto, time_to_proto
from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.client.types import (
    NO_WORDS,
    Account,
    AccountChange,
    BalanceAt,
    BalanceRequest,
    Event,
    Posting,
    Receipt,
    Transfer,
    TransferRequest,
)

_KINDS: Final[dict[int, Literal["TRANSFER", "DEPOSIT"]]] = {
    bank_pb2.TRANSFER_KIND_TRANSFER: "TRANSFER",
    bank_pb2.TRANSFER_KIND_DEPOSIT: "DEPOSIT",
}
_STATUSES: Final[dict[int, Literal["OPEN", "CLOSED"]]] = {
    bank_pb2.ACCOUNT_STATUS_OPEN: "OPEN",
    bank_pb2.ACCOUNT_STATUS_CLOSED: "CLOSED",
}


_FREEZES: Final[dict[int, Literal["OUTGOING", "INCOMING", "ALL"]]] = {
    bank_pb2.ACCOUNT_FREEZE_OUTGOING: "OUTGOING",
    bank_pb2.ACCOUNT_FREEZE_INCOMING: "INCOMING",
    bank_pb2.ACCOUNT_FREEZE_ALL: "ALL",
}
_FREEZE_NUMBERS: Final[dict[str, int]] = {name: number for number, name in _FREEZES.items()}


def freeze_to_proto(frozen: str) -> bank_pb2.AccountFreeze.ValueType:
    """Convert the directions of a freeze."""
    return bank_pb2.AccountFreeze.ValueType(_FREEZE_NUMBERS[frozen])


def change_from_proto(message: bank_pb2.AccountChange) -> AccountChange:
    """Convert a recorded change of an account."""
    return AccountChange(
        message.revision,
        message.action,
        message.changed_by,
        time_from_proto(message.changed_at),
        message.reason,
        dict(message.before),
        dict(message.after),
    )


def account_from_proto(message: bank_pb2.Account) -> Account:
    """Convert an account."""
    return Account(
        UUID(message.id),
        message.owner_id,
        money_from_proto(message.balance),
        message.version,
        time_from_proto(message.created_at),
        time_from_proto(message.updated_at),
        _STATUSES[message.status],
        _FREEZES.get(message.frozen),
        "CLEARING" if message.purpose == bank_pb2.ACCOUNT_PURPOSE_CLEARING else "CUSTOMER",
        money_from_proto(message.floor) if message.HasField("floor") else None,
        money_from_proto(message.available) if message.HasField("available") else None,
    )


def transfer_request_to_proto(request: TransferRequest) -> bank_pb2.TransferMoneyRequest:
    """Convert a transfer request."""
    message = bank_pb2.TransferMoneyRequest(
        sender_id=str(request.sender_id),
        recipient_id=str(request.recipient_id),
        amount=money_to_proto(request.amount),
        idempotency_key=request.idempotency_key,
        raw_idempotency_key=request.raw_idempotency_key,
    )
    if (words := request.words) is not NO_WORDS:
        message.description = words.description
        message.reference = words.reference
        message.is_reference_unique = words.is_reference_unique
        message.metadata.update(words.metadata)
    return message


def receipt_from_proto(message: bank_pb2.TransferMoneyResponse) -> Receipt:
    """Convert a transfer response; the receipt has the sender's posting."""
    balance = money_from_proto(message.sender_balance)
    transfer = transfer_from_proto(message.transfer)
    return Receipt(transfer, Posting(transfer.sender_id, message.sender_version, balance), message.is_replay)


def transfer_from_proto(message: bank_pb2.Transfer) -> Transfer:
    """Convert a transfer."""
    return Transfer(
        UUID(message.id),
        _KINDS[message.kind],
        UUID(message.sender_id),
        UUID(message.recipient_id),
        money_from_proto(message.amount),
        time_from_proto(message.created_at),
        message.description,
        message.reference,
        dict(message.metadata),
    )


def balance_request_to_proto(request: BalanceRequest) -> bank_pb2.BatchGetBalancesAtRequest.Request:
    """Convert a request for a balance after a version or at a time."""
    message = bank_pb2.BatchGetBalancesAtRequest.Request(account_id=str(request.account_id))
    if request.version is not None:
        message.version = request.version
    if request.time is not None:
        message.time.CopyFrom(time_to_proto(request.time))
    return message


def balance_at_from_proto(message: bank_pb2.BalanceAt) -> BalanceAt:
    """Convert a balance after an operation."""
    occurred_at = time_from_proto(message.occurred_at) if message.HasField("occurred_at") else None
    return BalanceAt(money_from_proto(message.balance), message.version, occurred_at)


def event_from_proto(message: bank_pb2.Event, epoch: str) -> Event:
    """Convert an event; `epoch` is the ledger's epoch when the event was read."""
    return Event(
        transfer_from_proto(message.transfer),
        _posting_from_proto(message.sender),
        _posting_from_proto(message.recipient),
        dict(message.descriptor),
        epoch,
        message.created_by,
    )


def _posting_from_proto(message: bank_pb2.Posting) -> Posting:
    return Posting(UUID(message.account_id), message.version, money_from_proto(message.balance_after))
