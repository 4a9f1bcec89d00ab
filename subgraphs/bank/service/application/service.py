"""Use cases of the bank and their authorization by account owner."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from kit.auth.principal import Principal
from kit.rpc import request_context
from subgraphs.bank.service.adapters.postgres.accounts import Accounts, Change
from subgraphs.bank.service.adapters.postgres.epoch import Epochs
from subgraphs.bank.service.adapters.postgres.reader import Reader
from subgraphs.bank.service.application.group_commit import Pipeline
from subgraphs.bank.service.domain import rules
from subgraphs.bank.service.domain.model import (
    Account,
    AccountChange,
    AccountStatus,
    BalanceAt,
    BalanceRequest,
    Command,
    Freeze,
    HeldPosting,
    IdempotencyKey,
    LedgerIdentity,
    Outcome,
    Transfer,
    TransferKind,
)
from subgraphs.bank.service.domain.words import MAX_REFERENCE, Words
from wallet import inputs
from wallet.accounts import clearing_account_id
from wallet.errors import (
    AccountClosed,
    AccountFrozen,
    AccountNotEmpty,
    AccountNotFound,
    CurrencyMismatch,
    FieldViolation,
    FloorAboveBalance,
    IdempotencyConflict,
    InvalidInput,
    PermissionDenied,
    TransferNotFound,
)
from wallet.idempotency_key import stored_forms
from wallet.money import EXPONENTS, MAX_AMOUNT, Money
from wallet.texts import text_problem

_TRANSFER: Final = "transfer"
_DEPOSIT: Final = "deposit"
_OPEN: Final = "openAccount"
_DEPOSITOR: Final = "card"
"""Principal in the idempotency key of every deposit, independent of the calling service."""
_MAX_OWNER_LENGTH: Final = 255
_MAX_REASON_LENGTH: Final = 200


class Bank:
    """Use cases of the bank.

    `api.policy` decides which methods a caller may call. This class decides which accounts the caller may use.
    Customers may use their own accounts, `Principal.can_read_all` allows reads of all accounts, and
    `Principal.can_write_all` allows a caller to open and close accounts of other owners and to move money from them.
    """

    def __init__(self, pipeline: Pipeline, reader: Reader, accounts: Accounts, epochs: Epochs) -> None:
        self._pipeline = pipeline
        self._reader = reader
        self._accounts = accounts
        self._epochs = epochs

    async def transfer(self, command: Command) -> Transfer:
        """Execute a transfer once per idempotency key. A replay returns the first result.

        Args:
            command: result of `transfer_command`.

        Raises:
            AccountNotFound, AccountClosed, CurrencyMismatch, InsufficientFunds, IdempotencyConflict: no money moved.
            Unavailable: the outcome is unknown; retry with the same key.
        """
        return await self._execute(command)

    def start_transfer(self, command: Command, deadline: float | None) -> "asyncio.Future[list[Outcome]]":
        """Start a transfer and return the future of its outcome; see `transfer` and `Pipeline.start`.

        Args:
            command: result of `transfer_command`.
            deadline: time on the monotonic clock at which the caller stops waiting; None for no deadline.

        Raises:
            ResourceExhausted: the queue is full; nothing was executed.
        """
        return self._pipeline.start(command, deadline)

    async def batch_transfer(self, commands: Sequence[Command | InvalidInput]) -> list[Outcome]:
        """Execute transfers independently of each other, each as `transfer` does.

        Args:
            commands: a command for each request, or the error of an invalid request.

        Returns:
            A transfer or an error for each request, in order; invalid requests keep their error.

        Raises:
            ResourceExhausted: the queue is full; nothing was executed.
        """
        valid = [command for command in commands if isinstance(command, Command)]
        outcomes = iter(await self._pipeline.submit_all(valid, request_context.current_request.get().deadline))
        return [next(outcomes) if isinstance(command, Command) else command for command in commands]

    async def deposit(
        self,
        account_id: UUID,
        amount: Money,
        idempotency_key: str,
        descriptor: Mapping[str, str],
    ) -> tuple[Transfer, bool]:
        """Credit an account from the clearing account of the currency, once per idempotency key.

        Returns:
            The deposit, and whether an earlier request made it.

        Raises:
            InvalidInput, AccountNotFound, AccountClosed, CurrencyMismatch, IdempotencyConflict: no money moved.
            Unavailable: the outcome is unknown; retry with the same key.
        """
        command = Command(
            uuid7(),
            TransferKind.DEPOSIT,
            clearing_account_id(amount.currency),
            account_id,
            amount,
            IdempotencyKey(_DEPOSITOR, _DEPOSIT, idempotency_key),
            owner_id=None,
            descriptor=descriptor,
            traceparent=request_context.current_trace().sampled_traceparent,
        )
        rules.check(command)
        transfer = await self._execute(command)
        return transfer, command.is_replay(transfer)

    async def _execute(self, command: Command) -> Transfer:
        """Return the command's transfer, or raise its refusal."""
        outcome = await self._pipeline.submit(command, request_context.current_request.get().deadline)
        if isinstance(outcome, Transfer):
            return outcome
        raise outcome

    async def open_account(
        self, caller: Principal, owner_id: str, currency: str, idempotency_key: str, raw_key: str | None = None
    ) -> tuple[Account, bool]:
        """Open an empty account once per caller and key. A replay returns the same account.

        The caller owns the account, unless the caller names another owner, which requires `Principal.can_write_all`.

        Args:
            caller: verified caller.
            owner_id: owner of the account; empty for the caller.
            currency: currency of the account.
            idempotency_key: identifies the request for this caller.
            raw_key: the key as the client sent it, in quotation marks or with spaces around it; None if the client
                sent `idempotency_key` itself. If a request with the raw key has opened an account in an earlier
                release, this account is returned.

        Returns:
            The account, and whether an earlier request opened it.

        Raises:
            InvalidInput, PermissionDenied, IdempotencyConflict: no account was opened.
            Unavailable: the outcome is unknown; retry with the same key.
        """
        owner_id = _authorized_owner(caller, owner_id, may_name_others=caller.can_write_all)
        violations = inputs.idempotency_key_violations(idempotency_key, raw_key)
        if currency not in EXPONENTS:
            violations.append(FieldViolation("currency", "must be an ISO 4217 currency"))
        if violations:
            raise InvalidInput(tuple(violations))
        stored, earlier = stored_forms(idempotency_key, raw_key)
        id_ = rules.opened_account_id(IdempotencyKey(caller.scope, _OPEN, stored))
        earlier_id = earlier and rules.opened_account_id(IdempotencyKey(caller.scope, _OPEN, earlier))
        account, is_replay = await self._accounts.open(id_, owner_id, currency, earlier_id or None)
        if (account.owner_id, account.balance.currency) != (owner_id, currency):
            raise IdempotencyConflict(idempotency_key)
        return account, is_replay

    async def close_account(self, caller: Principal, account_id: UUID) -> Account:
        """Close an empty account permanently and return it. Closing a closed account succeeds.

        Raises:
            AccountNotFound: the account does not exist, the caller may not use it, or it is a clearing account.
            AccountFrozen: the account is frozen; it was not closed.
            AccountNotEmpty: the balance is not 0; the account was not closed.
            Unavailable: the outcome is unknown; a retry is safe.
        """
        current = (await self._reader.get_accounts([account_id])).get(account_id)
        if current is None or not (caller.can_write_all or current.owner_id == caller.subject):
            raise AccountNotFound(str(account_id))
        account = _changed(account_id, await self._accounts.close(account_id, Change(caller.scope)))
        if account.status is not AccountStatus.CLOSED:
            raise (AccountNotEmpty if account.frozen is None else AccountFrozen)(str(account_id))
        return account

    async def freeze_account(self, caller: Principal, account_id: UUID, frozen: Freeze, reason: str) -> Account:
        """Refuse transfers of an account from now on, and return the account.

        Raises:
            InvalidInput: the reason is not valid.
            AccountNotFound: the account does not exist, or is a clearing account.
            AccountClosed: the account is closed.
            Unavailable: the outcome is unknown; a retry is safe.
        """
        change = _reasoned_change(caller, reason)
        account = _changed(account_id, await self._accounts.freeze(account_id, frozen, change))
        if account.status is AccountStatus.CLOSED:
            raise AccountClosed(str(account_id))
        return account

    async def thaw_account(self, caller: Principal, account_id: UUID, reason: str) -> Account:
        """End the freeze of an account, and return the account. Thawing an account that is not frozen succeeds.

        Raises:
            InvalidInput, AccountNotFound, Unavailable: as `freeze_account`.
        """
        change = _reasoned_change(caller, reason)
        return _changed(account_id, await self._accounts.thaw(account_id, change))

    async def set_account_floor(self, caller: Principal, account_id: UUID, floor: Money, reason: str) -> Account:
        """Set the floor of an account, the lower limit of its balance, and return the account.

        Raises:
            InvalidInput: the floor or the reason is not valid.
            AccountNotFound: the account does not exist, or is a clearing account.
            AccountClosed: the account is closed.
            CurrencyMismatch: the floor is not in the account's currency.
            FloorAboveBalance: the balance is below the floor; the floor was not changed.
            Unavailable: the outcome is unknown; a retry is safe.
        """
        change = _reasoned_change(caller, reason)
        if not -MAX_AMOUNT <= floor.amount <= 0:
            raise InvalidInput.for_field("floor", f"must be from -{MAX_AMOUNT:f} to 0")
        account = _changed(account_id, await self._accounts.set_floor(account_id, floor, change))
        if account.status is AccountStatus.CLOSED:
            raise AccountClosed(str(account_id))
        if account.balance.currency != floor.currency:
            raise CurrencyMismatch(str(account_id), floor.currency)
        if account.min_balance != floor.amount:
            raise FloorAboveBalance(str(account_id), str(floor), floor.currency)
        return account

    async def list_account_changes(self, account_id: UUID, before: int | None, limit: int) -> list[AccountChange]:
        """List the changes of an account that are not operations, below a revision, newest first."""
        return await self._accounts.list_changes(account_id, before, limit)

    async def list_accounts(
        self, caller: Principal, owner_id: str, after: UUID | None, limit: int, before: UUID | None = None
    ) -> list[Account]:
        """List an owner's accounts after an id, or the last ones before an id, in id order, including closed accounts.

        An empty `owner_id` means the caller. Only callers that may read all accounts may name another owner.

        Raises:
            InvalidInput: the owner id is too long or not printable.
            PermissionDenied: the caller may not name another owner.
        """
        owner_id = _authorized_owner(caller, owner_id, may_name_others=caller.can_read_all)
        return await self._reader.list_accounts(owner_id, after, limit, before)

    async def get_account(self, caller: Principal, account_id: UUID) -> Account:
        """Return the current state of an account.

        Raises:
            AccountNotFound: the account does not exist, or the caller may not read it.
        """
        return (await self.get_account_and_epoch(caller, account_id))[0]

    async def get_account_and_epoch(self, caller: Principal, account_id: UUID) -> tuple[Account, str]:
        """Return the current state of an account and the ledger's epoch (see `LedgerIdentity`).

        Raises:
            AccountNotFound: the account does not exist, or the caller may not read it.
        """
        found = await self._reader.get_account(account_id)
        if found is None or not _may_read(caller, found[0]):
            raise AccountNotFound(str(account_id))
        return found

    async def get_accounts(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, Account]:
        """Return the existing accounts that the caller may read, by id."""
        return (await self.get_accounts_and_epoch(caller, ids))[0]

    async def get_accounts_and_epoch(
        self, caller: Principal, ids: Sequence[UUID]
    ) -> tuple[dict[UUID, Account], str | None]:
        """Return the existing accounts that the caller may read, by id, and the ledger's epoch; None if there are none.

        See `LedgerIdentity` for epochs.
        """
        accounts, epoch = await self._reader.get_accounts_and_epoch(ids)
        readable = {id_: account for id_, account in accounts.items() if _may_read(caller, account)}
        return readable, epoch if readable else None

    async def get_balances_at(self, caller: Principal, requests: Sequence[BalanceRequest]) -> list[BalanceAt | None]:
        """Return balances of accounts after a version or at a time, from the ledger's entries.

        Transfers are dated before they are committed. So the balance at a time of the last seconds may still change.

        Returns:
            A balance for each request, in the same order; None if the account does not exist, or if the caller may not
            read it.
        """
        readable = await self.get_accounts(caller, list({each.account_id for each in requests}))
        allowed = [each for each in requests if each.account_id in readable]
        balances = iter(await self._reader.get_balances_at(allowed) if allowed else ())
        return [next(balances) if each.account_id in readable else None for each in requests]

    async def get_transfer(self, caller: Principal, transfer_id: UUID) -> Transfer:
        """Return a transfer from or to an account that the caller may read.

        Raises:
            TransferNotFound: the transfer does not exist, or the caller may read neither of its accounts.
        """
        transfer = (await self.get_transfers(caller, [transfer_id])).get(transfer_id)
        if transfer is None:
            raise TransferNotFound(str(transfer_id))
        return transfer

    async def get_transfers(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, Transfer]:
        """Return the transfers that exist and that are from or to an account that the caller may read.

        They have the words that the caller may read.
        """
        transfers = await self._reader.get_transfers(ids)
        account_ids = {posting.account_id for each in transfers.values() for posting in (each.sender, each.recipient)}
        readable = (await self.get_accounts(caller, list(account_ids))).keys()
        return {
            id_: _visible(caller, transfer, reads_sender=transfer.sender.account_id in readable)
            for id_, transfer in transfers.items()
            if not readable.isdisjoint((transfer.sender.account_id, transfer.recipient.account_id))
        }

    async def list_transfers_with_reference(
        self, caller: Principal, sender_id: UUID, reference: str, after: UUID | None, limit: int
    ) -> list[Transfer]:
        """List the transfers from an account that have a reference, after an id, in id order.

        Raises:
            InvalidInput: no transfer can have this reference.
            AccountNotFound: the account does not exist, or the caller may not read it.
        """
        problem = text_problem(reference, MAX_REFERENCE) if reference else "must not be empty"
        if problem is not None:
            raise InvalidInput.for_field("reference", problem)
        await self.get_account(caller, sender_id)
        transfers = await self._reader.list_transfers_with_reference(sender_id, reference, after, limit)
        return [_visible(caller, transfer, reads_sender=True) for transfer in transfers]

    async def list_versions(self, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
        """List the ids and versions of the accounts after an id, in id order."""
        return await self._reader.list_versions(after, limit)

    async def list_transfers(self, account_id: UUID, after_version: int, limit: int) -> tuple[list[Transfer], str]:
        """Return an account's transfers after a version of the account, in version order, and the ledger's epoch.

        See `LedgerIdentity` for epochs.
        """
        return await self._reader.list_transfers(account_id, after_version, limit)

    async def verify_history(
        self, reader_epoch: str, past_epochs: Sequence[str], postings: Sequence[HeldPosting]
    ) -> LedgerIdentity:
        """Compare the stored postings and epochs of a reader, such as analytics, with the ledger.

        See `Epochs.verify`.
        """
        return await self._epochs.verify(reader_epoch, past_epochs, postings)


def transfer_command(
    caller: Principal,
    sender_id: UUID,
    recipient_id: UUID,
    amount: Money,
    idempotency_key: str,
    raw_key: str | None = None,
    words: Words | None = None,
) -> Command:
    """Create the command of a caller's transfer; see `Command` for `raw_key` and `words`.

    Raises:
        InvalidInput: a field is invalid. The check does not read the accounts.
    """
    command = Command(
        uuid7(),
        TransferKind.TRANSFER,
        sender_id,
        recipient_id,
        amount,
        IdempotencyKey(caller.scope, _TRANSFER, idempotency_key),
        owner_id=None if caller.can_write_all else caller.subject,
        descriptor={},
        traceparent=request_context.current_trace().sampled_traceparent,
        raw_key=None if raw_key is None else IdempotencyKey(caller.scope, _TRANSFER, raw_key),
        words=words and replace(words, created_by=caller.scope),
    )
    rules.check(command)
    return command


def _changed(account_id: UUID, account: Account | None) -> Account:
    """Return an account after an attempt to change it.

    Raises:
        AccountNotFound: the account does not exist, or is a clearing account, which nobody changes.
    """
    if account is None or account.is_clearing:
        raise AccountNotFound(str(account_id))
    return account


def _reasoned_change(caller: Principal, reason: str) -> Change:
    """Return the change of a caller, who must state a reason.

    Raises:
        InvalidInput: the reason is empty or not valid.
    """
    problem = text_problem(reason, _MAX_REASON_LENGTH) if reason.strip() else "must not be empty"
    if problem is not None:
        raise InvalidInput.for_field("reason", problem)
    return Change(caller.scope, reason)


def _authorized_owner(caller: Principal, owner_id: str, *, may_name_others: bool) -> str:
    """Return the owner of the request's accounts: the owner that the request names, else the caller.

    Raises:
        InvalidInput: the owner id is too long or not printable.
        PermissionDenied: the request names an owner other than the caller, and the caller may not do so.
    """
    if owner_id in {"", caller.subject}:
        return caller.subject
    if not may_name_others:
        raise PermissionDenied
    if len(owner_id) > _MAX_OWNER_LENGTH or not owner_id.isprintable():
        raise InvalidInput.for_field("ownerId", f"must be at most {_MAX_OWNER_LENGTH} printable characters")
    return owner_id


def _visible(caller: Principal, transfer: Transfer, *, reads_sender: bool) -> Transfer:
    """Return the transfer with the words that the caller may read."""
    if transfer.words is None:
        return transfer
    return replace(transfer, words=transfer.words.visible_to(caller.scope, reads_sender=reads_sender))


def _may_read(caller: Principal, account: Account) -> bool:
    return caller.can_read_all or account.owner_id == caller.subject
