"""The bank's use cases: who may do what, and the answers."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from kit.auth.principal import Principal
from kit.rpc import request_context
from subgraphs.bank.service.adapters.postgres.accounts import Accounts
from subgraphs.bank.service.adapters.postgres.reader import Reader
from subgraphs.bank.service.application.pipeline import Pipeline
from subgraphs.bank.service.domain import model as domain
from subgraphs.bank.service.domain.model import (
    Account,
    Command,
    Key,
    Kind,
    Order,
    Outcome,
    Status,
    Transfer,
    opened_account_id,
)
from wallet import inputs
from wallet.accounts import clearing_account_id
from wallet.errors import (
    AccountNotEmpty,
    AccountNotFound,
    FieldViolation,
    IdempotencyConflict,
    InvalidInput,
    PermissionDenied,
    TransferNotFound,
)
from wallet.money import EXPONENTS, Money

_TRANSFER: Final = "transfer"
_DEPOSIT: Final = "deposit"
_OPEN: Final = "openAccount"
_DEPOSITOR: Final = "card"
"""The scope of every deposit's key, whichever service completes it."""
_MAX_OWNER_LENGTH: Final = 255


class Bank:
    """What callers may do with the ledger. Which calls they may make at all, `policy` says; here it is said about whose
    accounts: a customer's are their own, `Principal.reads_all` and `Principal.moves_all` are about everybody's.
    """

    def __init__(self, pipeline: Pipeline, reader: Reader, accounts: Accounts) -> None:
        self._pipeline = pipeline
        self._reader = reader
        self._accounts = accounts

    async def transfer(self, caller: Principal, order: Order) -> Transfer:
        """Moves money once per caller and key; the same again on a replay.

        Raises:
            InvalidInput, AccountNotFound, AccountClosed, CurrencyMismatch, InsufficientFunds, IdempotencyConflict:
                nothing was moved.
            Unavailable: the outcome is unknown; a retry with the same key is safe.
        """
        return await self._made(_command(caller, order))

    async def transfer_all(self, caller: Principal, orders: Sequence[Order | InvalidInput]) -> list[Outcome]:
        """As `transfer`, for each of the orders on its own: what it made or what `transfer` would raise, in their
        order. An order that could not even be read stands as its error, and is answered with it.

        Raises:
            ResourceExhausted: too much waits already; nothing was done.
        """
        outcomes: dict[int, Outcome] = {}
        commands: dict[int, Command] = {}
        for place, order in enumerate(orders):
            try:
                commands[place] = _command(caller, order)
            except InvalidInput as refusal:
                outcomes[place] = refusal
        made = await self._pipeline.submit_all(list(commands.values()), request_context.current_request.get().deadline)
        outcomes.update(zip(commands, made, strict=True))
        return [outcomes[place] for place in range(len(orders))]

    async def deposit(
        self,
        account_id: UUID,
        amount: Money,
        idempotency_key: str,
        descriptor: Mapping[str, str],
    ) -> Transfer:
        """Credits an account from the clearing account of the currency, once per key.

        Raises:
            InvalidInput, AccountNotFound, AccountClosed, CurrencyMismatch, IdempotencyConflict: nothing was moved.
            Unavailable: the outcome is unknown; a retry with the same key is safe.
        """
        command = Command(
            uuid7(),
            Kind.DEPOSIT,
            clearing_account_id(amount.currency),
            account_id,
            amount,
            Key(_DEPOSITOR, _DEPOSIT, idempotency_key),
            owner_id=None,
            descriptor=descriptor,
            traceparent=request_context.current_trace().sampled_traceparent,
        )
        domain.check(command)
        return await self._made(command)

    async def _made(self, command: Command) -> Transfer:
        """The transfer that the command leads to, or its refusal raised."""
        outcome = await self._pipeline.submit(command, request_context.current_request.get().deadline)
        if isinstance(outcome, Transfer):
            return outcome
        raise outcome

    async def open_account(self, caller: Principal, owner_id: str, currency: str, idempotency_key: str) -> Account:
        """An empty account, once per caller and key; the same again on a replay. It is the caller's own, unless whoever
        moves all names another owner.

        Raises:
            InvalidInput, PermissionDenied, IdempotencyConflict: nothing was opened.
            Unavailable: the outcome is unknown; a retry with the same key is safe.
        """
        owner_id = _owner(caller, owner_id, anybody=caller.can_write_all)
        violations = inputs.idempotency_key_violations(idempotency_key)
        if currency not in EXPONENTS:
            violations.append(FieldViolation("currency", "must be an ISO 4217 currency"))
        if violations:
            raise InvalidInput(tuple(violations))
        id_ = opened_account_id(Key(caller.scope, _OPEN, idempotency_key))
        account = await self._accounts.open(id_, owner_id, currency)
        if (account.owner_id, account.balance.currency) != (owner_id, currency):
            raise IdempotencyConflict(idempotency_key)
        return account

    async def close_account(self, caller: Principal, account_id: UUID) -> Account:
        """The account, closed for good. Closing it again is no error.

        Raises:
            AccountNotFound: there is none, or it is another's, or the ledger's own.
            AccountNotEmpty: nothing was changed.
            Unavailable: the outcome is unknown; a retry is safe.
        """
        found = (await self._reader.accounts([account_id])).get(account_id)
        is_callers = found is not None and (caller.can_write_all or found.owner_id == caller.subject)
        if found is None or not is_callers or found.is_clearing:
            raise AccountNotFound(str(account_id))
        account = await self._accounts.close(account_id)
        if account is None:
            raise AccountNotFound(str(account_id))
        if account.status is not Status.CLOSED:
            raise AccountNotEmpty(str(account_id))
        return account

    async def list_accounts(self, caller: Principal, owner_id: str, after: UUID | None, limit: int) -> list[Account]:
        """The accounts of one owner after an id, in id order, closed ones too. They are the caller's, unless whoever
        reads all names another owner.

        Raises:
            InvalidInput, PermissionDenied: as they say.
        """
        return await self._reader.list_accounts(_owner(caller, owner_id, anybody=caller.can_read_all), after, limit)

    async def account(self, caller: Principal, account_id: UUID) -> Account:
        """An account now.

        Raises:
            AccountNotFound: there is none, or it is not for the caller to see.
        """
        account = (await self.accounts(caller, [account_id])).get(account_id)
        if account is None:
            raise AccountNotFound(str(account_id))
        return account

    async def accounts(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, Account]:
        """Those of the accounts that exist and that the caller may see."""
        found = await self._reader.accounts(ids)
        return {id_: account for id_, account in found.items() if _may_see(caller, account)}

    async def get_transfer(self, caller: Principal, transfer_id: UUID) -> Transfer:
        """A transfer from or to an account that the caller may see.

        Raises:
            TransferNotFound: there is none, or it is between others.
        """
        transfer = (await self.transfers(caller, [transfer_id])).get(transfer_id)
        if transfer is None:
            raise TransferNotFound(str(transfer_id))
        return transfer

    async def transfers(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, Transfer]:
        """Those of the transfers that exist and that are from or to an account that the caller may see."""
        found = await self._reader.transfers(ids)
        sides = {posting.account_id for each in found.values() for posting in (each.sender, each.recipient)}
        seen = (await self.accounts(caller, list(sides))).keys()
        return {
            id_: transfer
            for id_, transfer in found.items()
            if not seen.isdisjoint((transfer.sender.account_id, transfer.recipient.account_id))
        }

    async def versions(self, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
        """Accounts after an id, in id order, with their versions."""
        return await self._reader.versions(after, limit)

    async def transfers_of(self, account_id: UUID, after_version: int, limit: int) -> list[Transfer]:
        """The transfers from and to an account after a version of it, in version order."""
        return await self._reader.transfers_of(account_id, after_version, limit)


def _command(caller: Principal, order: Order | InvalidInput) -> Command:
    """The order as the ledger takes it.

    Raises:
        InvalidInput: it can never be done.
    """
    if isinstance(order, InvalidInput):
        raise order
    command = Command(
        uuid7(),
        Kind.TRANSFER,
        order.sender_id,
        order.recipient_id,
        order.amount,
        Key(caller.scope, _TRANSFER, order.idempotency_key),
        owner_id=None if caller.can_write_all else caller.subject,
        descriptor={},
        traceparent=request_context.current_trace().sampled_traceparent,
    )
    domain.check(command)
    return command


def _owner(caller: Principal, named: str, *, anybody: bool) -> str:
    """Whose account it is about: the caller's own unless somebody is named, who may be anybody or the caller alone.

    Raises:
        InvalidInput: the name is none that an owner can have.
        PermissionDenied: somebody else is named.
    """
    if named in {"", caller.subject}:
        return caller.subject
    if not anybody:
        raise PermissionDenied
    if len(named) > _MAX_OWNER_LENGTH or not named.isprintable():
        raise InvalidInput.for_field("ownerId", f"must be at most {_MAX_OWNER_LENGTH} printable characters")
    return named


def _may_see(caller: Principal, account: Account) -> bool:
    return caller.can_read_all or account.owner_id == caller.subject
