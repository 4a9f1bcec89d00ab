"""Rules of money movement: pure functions on immutable values."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from subgraphs.bank.service.domain.model import (
    Account,
    AccountStatus,
    Command,
    Decision,
    Freeze,
    IdempotencyKey,
    IdempotencyRecord,
    Outcome,
    Posting,
    Transfer,
    TransferKind,
)
from wallet.errors import (
    AccountClosed,
    AccountFrozen,
    AccountNotFound,
    CurrencyMismatch,
    FieldViolation,
    InsufficientFunds,
    InvalidInput,
    ReferenceUsed,
    WalletError,
)
from wallet.inputs import idempotency_key_violations
from wallet.money import MAX_AMOUNT, Money

_MAX_DESCRIPTOR_ENTRIES: Final = 16
_MAX_DESCRIPTOR_LENGTH: Final = 128


def opened_account_id(key: IdempotencyKey) -> UUID:
    """Return the id of the account that a key opens. It depends on the key only, so a retry opens the same account."""
    return uuid5(NAMESPACE_URL, f"wallet:account:{key.principal}:{key.key}")


def check(command: Command) -> None:
    """Validate the command's fields, independently of the accounts.

    Raises:
        InvalidInput: a field is invalid; the error lists every invalid field.
    """
    violations = []
    if not command.amount.is_positive:
        violations.append(FieldViolation("amount", "must be positive"))
    elif command.amount.amount > MAX_AMOUNT:
        violations.append(FieldViolation("amount", f"must be at most {MAX_AMOUNT:f}"))
    if command.sender_id == command.recipient_id:
        violations.append(FieldViolation("recipientId", "must differ from the sender's account"))
    raw_key = None if command.raw_key is None else command.raw_key.key
    violations.extend(idempotency_key_violations(command.key.key, raw_key))
    if len(command.descriptor) > _MAX_DESCRIPTOR_ENTRIES or any(
        len(text) > _MAX_DESCRIPTOR_LENGTH or "\0" in text for item in command.descriptor.items() for text in item
    ):
        violations.append(
            FieldViolation(
                "descriptor",
                f"must have at most {_MAX_DESCRIPTOR_ENTRIES} entries of at most {_MAX_DESCRIPTOR_LENGTH} characters, "
                "none of them NUL",
            ),
        )
    if command.words is not None:
        violations.extend(command.words.violations())
    if violations:
        raise InvalidInput(tuple(violations))


def decide(
    accounts: Mapping[UUID, Account],
    records: Mapping[IdempotencyKey, IdempotencyRecord],
    commands: Sequence[Command],
    now: datetime,
    references: Collection[tuple[UUID, str]] = (),
) -> Decision:
    """Decide commands in order. Each command sees the balances after the commands before it.

    Args:
        accounts: current state of all existing accounts that the commands name. The caller locks them or verifies at
            commit that they did not change.
        records: stored idempotency records of the commands' keys. If both `stored_keys` of a command have a record, the
            record of the second one is used, because an earlier release stored it for a request with the same
            `Idempotency-Key` header.
        commands: commands that passed `check`.
        now: current time. An operation is never dated before an earlier operation of either account.
        references: senders and references of the commands that need a unique reference, as far as an earlier transfer
            has them.
    """
    after = dict(accounts)
    used = set(references)
    new_records: dict[IdempotencyKey, IdempotencyRecord] = {}
    outcomes: list[Outcome] = []
    transfers: list[Transfer] = []
    for command in commands:
        key, earlier_key = command.stored_keys
        record = records.get(key) or new_records.get(key)
        if earlier_key is not None:  # no new record has this key
            record = records.get(earlier_key) or record
        if record is not None:
            outcomes.append(record.replay(command))
            continue
        reference = None if command.words is None else (command.sender_id, command.words.reference)
        outcome = _apply(after, command, now, is_reference_used=reference in used)
        if isinstance(outcome, Transfer):
            transfers.append(outcome)
            if reference is not None:
                used.add(reference)
        new_records[key] = IdempotencyRecord(command.fingerprint, outcome, command.transfer_id)
        outcomes.append(outcome)
    changed = [account for id_, account in after.items() if account is not accounts[id_]]
    return Decision(outcomes, transfers, changed, new_records)


def _apply(
    accounts: dict[UUID, Account], command: Command, now: datetime, *, is_reference_used: bool = False
) -> Outcome:
    """Apply one command. Updates `accounts` unless the command is refused."""
    sender, recipient = accounts.get(command.sender_id), accounts.get(command.recipient_id)
    is_transfer = command.kind is TransferKind.TRANSFER  # clearing accounts take part in deposits only
    if sender is None or command.owner_id not in {None, sender.owner_id} or (is_transfer and sender.is_clearing):
        return AccountNotFound(str(command.sender_id))
    if recipient is None or (is_transfer and recipient.is_clearing):
        return AccountNotFound(str(command.recipient_id))
    refusal = _find_refusal(sender, recipient, command, is_reference_used=is_reference_used)
    if refusal is not None:
        return refusal

    amount = command.amount
    at = max(now, sender.updated_at, recipient.updated_at)
    sender = accounts[sender.id] = sender.with_balance(sender.balance - amount, at)
    recipient = accounts[recipient.id] = recipient.with_balance(recipient.balance + amount, at)
    return Transfer(
        command.transfer_id,
        command.kind,
        Posting(sender.id, sender.version, sender.balance),
        Posting(recipient.id, recipient.version, recipient.balance),
        amount,
        at,
        command.stored_keys[0].key,
        command.descriptor,
        command.words,
    )


def _find_refusal(
    sender: Account, recipient: Account, command: Command, *, is_reference_used: bool
) -> WalletError | None:
    """Return the reason why these accounts, which the caller may use, refuse the command; None if there is none."""
    amount, words = command.amount, command.words
    for account, direction in ((sender, Freeze.OUTGOING), (recipient, Freeze.INCOMING)):
        if account.status is AccountStatus.CLOSED:
            return AccountClosed(str(account.id))
        if account.frozen is not None and account.frozen in {direction, Freeze.ALL}:
            return AccountFrozen(str(account.id))
        if account.balance.currency != amount.currency:
            return CurrencyMismatch(str(account.id), amount.currency)
    if words is not None and words.is_reference_unique and is_reference_used:
        return ReferenceUsed(str(sender.id), words.reference)
    available = sender.available
    if available is not None and available < amount.amount:
        text = str(Money(available, amount.currency))
        return InsufficientFunds(str(sender.id), str(amount), text, amount.currency)
    return None
