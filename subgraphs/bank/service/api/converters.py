"""Converts between `bank.proto` messages and the domain's values."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from google.type.money_pb2 import Money as MoneyMessage

from kit.auth.principal import Principal
from kit.rpc import status
from kit.rpc.converters import money_from_proto, money_to_proto, time_from_proto, time_to_proto
from protos.wallet.bank.v1 import bank_pb2
from subgraphs.bank.service.application.service import transfer_command
from subgraphs.bank.service.domain.model import (
    Account,
    AccountChange,
    AccountStatus,
    BalanceAt,
    BalanceRequest,
    Command,
    Freeze,
    HeldPosting,
    Outcome,
    Posting,
    Purpose,
    Transfer,
    TransferKind,
)
from subgraphs.bank.service.domain.words import Words
from wallet import inputs
from wallet.errors import InvalidInput
from wallet.money import Money, MoneyError

_PAGE_SIZE: Final = 1_000
_MAX_PAGE_SIZE: Final = 10_000
_MAX_IDS: Final = 1_000
_KINDS: Final = {
    TransferKind.TRANSFER: bank_pb2.TRANSFER_KIND_TRANSFER,
    TransferKind.DEPOSIT: bank_pb2.TRANSFER_KIND_DEPOSIT,
}
_STATUSES: Final = {
    AccountStatus.OPEN: bank_pb2.ACCOUNT_STATUS_OPEN,
    AccountStatus.CLOSED: bank_pb2.ACCOUNT_STATUS_CLOSED,
}


_FREEZES: Final = {
    Freeze.OUTGOING: bank_pb2.ACCOUNT_FREEZE_OUTGOING,
    Freeze.INCOMING: bank_pb2.ACCOUNT_FREEZE_INCOMING,
    Freeze.ALL: bank_pb2.ACCOUNT_FREEZE_ALL,
}
_FREEZES_BY_NUMBER: Final[dict[int, Freeze]] = {number: frozen for frozen, number in _FREEZES.items()}
_PURPOSES: Final = {
    Purpose.CUSTOMER: bank_pb2.ACCOUNT_PURPOSE_CUSTOMER,
    Purpose.CLEARING: bank_pb2.ACCOUNT_PURPOSE_CLEARING,
}


def freeze_from_proto(number: int) -> Freeze:
    """Convert the directions of a freeze.

    Raises:
        InvalidInput: none, or an unknown one.
    """
    frozen = _FREEZES_BY_NUMBER.get(number)
    if frozen is None:
        raise InvalidInput.for_field("frozen", f"must be one of {', '.join(Freeze)}")
    return frozen


def change_to_proto(change: AccountChange) -> bank_pb2.AccountChange:
    """Convert a recorded change of an account."""
    return bank_pb2.AccountChange(
        revision=change.revision,
        action=change.action,
        changed_by=change.changed_by,
        changed_at=time_to_proto(change.changed_at),
        reason=change.reason,
        before=change.before,
        after=change.after,
    )


def id_from_text(field: str, text: str) -> UUID:
    """Parse the UUID of a request field.

    Raises:
        InvalidInput: the text is not a UUID. The error names the field.
    """
    try:
        return inputs.parse_uuid(text)
    except ValueError as error:
        raise InvalidInput.for_field(field, str(error)) from None


def ids_from_texts(texts: Sequence[str]) -> dict[str, UUID]:
    """Parse the ids of a batch request. Return the UUID of each text.

    Raises:
        InvalidInput: too many ids, or one of them is not a UUID.
    """
    if len(texts) > _MAX_IDS:
        raise InvalidInput.for_field("ids", f"must have at most {_MAX_IDS} entries")
    return {text: id_from_text("ids", text) for text in texts}


def amount_from_proto(message: MoneyMessage, field: str = "amount") -> Money:
    """Convert an amount of a request.

    Raises:
        InvalidInput: the message is not a valid amount. The error names the field.
    """
    try:
        return money_from_proto(message)
    except MoneyError as error:
        raise InvalidInput.for_field(field, str(error)) from None


def page_size_from_proto(requested: int) -> int:
    """Return the page size of a list request, or the default for 0.

    Raises:
        InvalidInput: the size is out of range.
    """
    if not 0 <= requested <= _MAX_PAGE_SIZE:
        raise InvalidInput.for_field("pageSize", f"must be 1 to {_MAX_PAGE_SIZE}, or 0 for {_PAGE_SIZE}")
    return requested or _PAGE_SIZE


def epoch_from_text(field: str, text: str) -> str:
    """Return the id of an epoch, which is a UUID, or empty for the first epoch.

    Raises:
        InvalidInput: the text is neither empty nor a UUID. The error names the field.
    """
    return str(id_from_text(field, text)) if text else ""


def held_posting_from_proto(message: bank_pb2.VerifyHistoryRequest.HeldPosting) -> HeldPosting:
    """Convert a posting that a reader of the ledger, such as analytics, has stored.

    Raises:
        InvalidInput: an id is not a UUID.
    """
    account_id = id_from_text("postings.accountId", message.account_id)
    return HeldPosting(account_id, message.version, id_from_text("postings.transferId", message.transfer_id))


def balance_request_from_proto(message: bank_pb2.BatchGetBalancesAtRequest.Request) -> BalanceRequest:
    """Convert a request for a balance after a version or at a time.

    Raises:
        InvalidInput: a field is invalid, or the request has neither a version nor a time.
    """
    account_id = id_from_text("requests.accountId", message.account_id)
    if message.HasField("version"):
        if message.version < 0:
            raise InvalidInput.for_field("requests.version", "must not be negative")
        return BalanceRequest(account_id, version=message.version)
    if not message.HasField("time"):
        raise InvalidInput.for_field("requests.at", "is required: a version or a time")
    try:
        return BalanceRequest(account_id, time=time_from_proto(message.time))
    except (ValueError, OverflowError):
        raise InvalidInput.for_field("requests.time", "must be in the years 1 to 9999") from None


def balance_at_to_proto(balance: BalanceAt) -> bank_pb2.BalanceAt:
    """Convert a balance after an operation."""
    return bank_pb2.BalanceAt(
        balance=money_to_proto(balance.balance),
        version=balance.version,
        occurred_at=None if balance.occurred_at is None else time_to_proto(balance.occurred_at),
    )


def command_from_proto(caller: Principal, request: bank_pb2.TransferMoneyRequest) -> Command:
    """Convert a transfer request into the caller's command.

    Raises:
        InvalidInput: a field is invalid.
    """
    return transfer_command(
        caller,
        id_from_text("senderId", request.sender_id),
        id_from_text("recipientId", request.recipient_id),
        amount_from_proto(request.amount),
        request.idempotency_key,
        request.raw_idempotency_key or None,
        _words_from_proto(request),
    )


def _words_from_proto(request: bank_pb2.TransferMoneyRequest) -> Words | None:
    if not (request.description or request.reference or request.metadata or request.is_reference_unique):
        return None
    return Words(request.description, request.reference, dict(request.metadata), request.is_reference_unique)


def command_or_error_from_proto(caller: Principal, request: bank_pb2.TransferMoneyRequest) -> Command | InvalidInput:
    """Convert one request of a batch; an invalid request becomes its error."""
    try:
        return command_from_proto(caller, request)
    except InvalidInput as error:
        return error


def account_to_proto(account: Account) -> bank_pb2.Account:
    """Convert an account."""
    return bank_pb2.Account(
        id=str(account.id),
        owner_id=account.owner_id or "",
        balance=money_to_proto(account.balance),
        version=account.version,
        created_at=time_to_proto(account.created_at),
        updated_at=time_to_proto(account.updated_at),
        status=_STATUSES[account.status],
        frozen=bank_pb2.ACCOUNT_FREEZE_UNSPECIFIED if account.frozen is None else _FREEZES[account.frozen],
        purpose=_PURPOSES[account.purpose],
        **_credit_line_to_proto(account),
    )


def _credit_line_to_proto(account: Account) -> dict[str, MoneyMessage]:
    """Return the floor, and the amount that the account can pay, unless the floor is zero or there is none."""
    if not account.min_balance or account.available is None:
        return {}
    currency = account.balance.currency
    amounts = {"floor": account.min_balance, "available": account.available}
    return {name: money_to_proto(Money(amount, currency)) for name, amount in amounts.items()}


def receipt_to_proto(transfer: Transfer, *, is_replay: bool) -> bank_pb2.TransferMoneyResponse:
    """Convert a transfer to the response of `TransferMoney`, with the sender's posting."""
    return bank_pb2.TransferMoneyResponse(
        transfer=transfer_to_proto(transfer),
        sender_version=transfer.sender.version,
        sender_balance=money_to_proto(transfer.sender.balance_after),
        is_replay=is_replay,
    )


def outcome_to_proto(command: Command | InvalidInput, outcome: Outcome) -> bank_pb2.BatchTransferMoneyResponse.Result:
    """Convert the outcome of one request of a batch."""
    if isinstance(outcome, Transfer):
        is_replay = isinstance(command, Command) and command.is_replay(outcome)
        return bank_pb2.BatchTransferMoneyResponse.Result(value=receipt_to_proto(outcome, is_replay=is_replay))
    return bank_pb2.BatchTransferMoneyResponse.Result(error=status.error_to_status(outcome))


def transfer_to_proto(transfer: Transfer) -> bank_pb2.Transfer:
    """Convert a transfer."""
    message = bank_pb2.Transfer(
        id=str(transfer.id),
        kind=_KINDS[transfer.kind],
        sender_id=str(transfer.sender.account_id),
        recipient_id=str(transfer.recipient.account_id),
        amount=money_to_proto(transfer.amount),
        created_at=time_to_proto(transfer.created_at),
    )
    if transfer.words is not None:
        message.description = transfer.words.description
        message.reference = transfer.words.reference
        message.metadata.update(transfer.words.metadata)
    return message


def event_to_proto(transfer: Transfer) -> bank_pb2.Event:
    """Convert a transfer to an event, with both postings and the descriptor."""
    return bank_pb2.Event(
        transfer=transfer_to_proto(transfer),
        sender=_posting_to_proto(transfer.sender),
        recipient=_posting_to_proto(transfer.recipient),
        descriptor=dict(transfer.descriptor),
        created_by="" if transfer.words is None else transfer.words.created_by,
    )


def _posting_to_proto(posting: Posting) -> bank_pb2.Posting:
    return bank_pb2.Posting(
        account_id=str(posting.account_id),
        version=posting.version,
        balance_after=money_to_proto(posting.balance_after),
    )
