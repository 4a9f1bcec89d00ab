"""The bank's use cases: who may do what, and the answers."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from kit.principal import Principal
from subgraphs.bank import domain
from subgraphs.bank.domain import Account, Command, Key, Kind, Operation, clearing_account_id
from subgraphs.bank.ledger import Ledger, result
from subgraphs.bank.repository import Reader
from wallet.errors import AccountNotFound, PermissionDenied, TransferNotFound
from wallet.money import Money

_TRANSFER: Final = "transfer"
_DEPOSIT: Final = "deposit"
_DEPOSITOR: Final = "card"
"""The scope of every deposit's key, whichever service completes it."""


class Bank:
    """What callers may do with the ledger. A customer acts on their own accounts only, a service on any."""

    def __init__(self, ledger: Ledger, reader: Reader) -> None:
        self._ledger = ledger
        self._reader = reader

    async def transfer(
        self,
        caller: Principal,
        sender_id: UUID,
        recipient_id: UUID,
        amount: Money,
        idempotency_key: str,
    ) -> Operation:
        """Moves money once per caller and key; the same again on a replay.

        Raises:
            InvalidInput, AccountNotFound, AccountClosed, CurrencyMismatch, InsufficientFunds, IdempotencyConflict:
                nothing was moved.
            Unavailable: the outcome is unknown; a retry with the same key is safe.
        """
        command = Command(
            uuid7(),
            Kind.TRANSFER,
            sender_id,
            recipient_id,
            amount,
            Key(caller.scope, _TRANSFER, idempotency_key),
            owner_id=None if caller.is_service else caller.subject,
            descriptor={},
        )
        return await self._submit(command)

    async def deposit(
        self,
        caller: Principal,
        account_id: UUID,
        amount: Money,
        idempotency_key: str,
        descriptor: Mapping[str, str],
    ) -> Operation:
        """Credits an account from the clearing account of the currency, once per key. For services.

        Raises:
            PermissionDenied: the caller is no service.
            InvalidInput, AccountNotFound, AccountClosed, CurrencyMismatch, IdempotencyConflict: nothing was moved.
            Unavailable: the outcome is unknown; a retry with the same key is safe.
        """
        _require_service(caller)
        command = Command(
            uuid7(),
            Kind.DEPOSIT,
            clearing_account_id(amount.currency),
            account_id,
            amount,
            Key(_DEPOSITOR, _DEPOSIT, idempotency_key),
            owner_id=None,
            descriptor=descriptor,
        )
        return await self._submit(command)

    async def _submit(self, command: Command) -> Operation:
        domain.check(command)
        return result(await self._ledger.submit(command))

    async def account(self, caller: Principal, account_id: UUID) -> Account:
        """An account of the caller's now.

        Raises:
            AccountNotFound: there is none, or it is another's.
        """
        account = (await self.accounts(caller, [account_id])).get(account_id)
        if account is None:
            raise AccountNotFound(str(account_id))
        return account

    async def accounts(self, caller: Principal, ids: Sequence[UUID]) -> dict[UUID, Account]:
        """Those of the accounts that exist and that the caller may see."""
        found = await self._reader.accounts(ids)
        return {id_: account for id_, account in found.items() if _may_see(caller, account)}

    async def operation(self, caller: Principal, transfer_id: UUID) -> Operation:
        """A transfer from or to an account of the caller's.

        Raises:
            TransferNotFound: there is none, or it is between others.
        """
        operation = await self._reader.operation(transfer_id)
        if operation is None or not await self.accounts(
            caller,
            [operation.transfer.sender_id, operation.transfer.recipient_id],
        ):
            raise TransferNotFound(str(transfer_id))
        return operation

    async def versions(self, caller: Principal, after: UUID | None, limit: int) -> list[tuple[UUID, int]]:
        """Accounts after an id, in id order, with their versions. For services.

        Raises:
            PermissionDenied: the caller is no service.
        """
        _require_service(caller)
        return await self._reader.versions(after, limit)

    async def operations(self, caller: Principal, account_id: UUID, after_version: int, limit: int) -> list[Operation]:
        """An account's operations after a version, in version order. For services.

        Raises:
            PermissionDenied: the caller is no service.
        """
        _require_service(caller)
        return await self._reader.operations(account_id, after_version, limit)


def _may_see(caller: Principal, account: Account) -> bool:
    return caller.is_service or account.owner_id == caller.subject


def _require_service(caller: Principal) -> None:
    if not caller.is_service:
        raise PermissionDenied
