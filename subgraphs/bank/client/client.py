"""Typed gRPC client of the bank."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from kit.rpc.batches import call_each
from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.converters import money_from_proto, money_to_proto
from kit.rpc.status import error_from_status
from kit.rpc.tls import TLS
from kit.runtime.pauses import convert_all, with_pauses
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from subgraphs.bank.client.converters import (
    account_from_proto,
    balance_at_from_proto,
    balance_request_to_proto,
    change_from_proto,
    event_from_proto,
    freeze_to_proto,
    receipt_from_proto,
    transfer_from_proto,
    transfer_request_to_proto,
)
from subgraphs.bank.client.forwarding import TransferForwarder
from subgraphs.bank.client.types import (
    NO_WORDS,
    Account,
    AccountChange,
    AccountPage,
    AccountVersion,
    Balance,
    BalanceAt,
    BalanceRequest,
    Event,
    HeldPosting,
    LedgerIdentity,
    OpenedAccount,
    Posting,
    Receipt,
    Transfer,
    TransferPage,
    TransferRequest,
    Words,
)
from wallet.errors import InvalidInput, WalletError
from wallet.money import Money

SERVICE: Final = bank_pb2.DESCRIPTOR.services_by_name["BankService"].full_name

_READS: Final = (
    "GetBalance",
    "GetTransfer",
    "BatchGetAccounts",
    "BatchGetBalancesAt",
    "BatchGetTransfers",
    "ListTransfers",
    "ListAccountChanges",
    "ListAccounts",
    "ListAccountVersions",
    "ListEvents",
    "VerifyHistory",
)
_MAX_PAGE: Final = 10_000
_DEPENDENCY: Final = "the bank"  # in error messages


class BankClient:
    """Calls the bank with the identity of the current caller (`kit.rpc.request_context.current_request`).

    Every method raises the `WalletError` that the bank returns. It raises Unavailable if the bank is unavailable, and
    DeadlineExceeded if the bank does not respond in time. After these two errors the outcome of a write is unknown:
    retry with the same idempotency key. Reads are always safe to retry.
    """

    def __init__(
        self,
        stub: "bank_pb2_grpc.BankServiceAsyncStub",
        limits: ClientLimits = ClientLimits(),
        gateway_token: Callable[[], str] | None = None,
    ) -> None:
        self._stub = stub
        self._calls = RpcClient(_DEPENDENCY, limits)
        self._forwarder = gateway_token and TransferForwarder(stub, gateway_token, _DEPENDENCY)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        target: str,
        *,
        limits: ClientLimits = ClientLimits(),
        tls: TLS | None = None,
        gateway_token: Callable[[], str] | None = None,
    ) -> AsyncIterator["BankClient"]:
        """Yield a client of the bank at a gRPC target. The client connects at the first call.

        Args:
            target: gRPC target.
            limits: limits of the calls.
            tls: certificates; None: plaintext.
            gateway_token: returns a token of the gateway; transfers of concurrent callers are then sent together
                (`forwarding`). None: each transfer is a call of its own.
        """
        async with open_channel(target, SERVICE, _READS, tls, name="bank") as opened:
            yield cls(bank_pb2_grpc.BankServiceStub(opened), limits, gateway_token)

    async def transfer(
        self,
        sender_id: UUID,
        recipient_id: UUID,
        amount: Money,
        idempotency_key: str,
        raw_idempotency_key: str = "",
        words: Words = NO_WORDS,
    ) -> Receipt:
        """Move money once per idempotency key; see `TransferRequest` for the two forms of a key.

        Returns:
            The transfer with the sender's posting.
        """
        request = transfer_request_to_proto(
            TransferRequest(sender_id, recipient_id, amount, idempotency_key, raw_idempotency_key, words)
        )
        if self._forwarder is None:
            response = await self._calls.unary(self._stub.TransferMoney, request)
        else:
            response = await self._calls.call(self._stub.TransferMoney, request, self._forwarder.send)
        return receipt_from_proto(response)

    async def batch_transfer(self, requests: Sequence[TransferRequest]) -> list[Receipt | WalletError]:
        """Execute up to 8,000 transfers, each independently of the others.

        Returns:
            A receipt or an error for each request, in the same order.
        """
        messages = await convert_all(transfer_request_to_proto, requests)
        request = bank_pb2.BatchTransferMoneyRequest(transfers=messages)
        response = await self._calls.unary(self._stub.BatchTransferMoney, request)
        return [
            receipt_from_proto(result.value) if result.HasField("value") else error_from_status(result.error)
            async for result in with_pauses(response.results)
        ]

    async def batch_transfer_valid(
        self, requests: Sequence[TransferRequest | InvalidInput]
    ) -> list[Receipt | WalletError]:
        """Execute the valid ones of up to 8,000 transfers; see `batch_transfer`.

        Args:
            requests: requests, or the errors of those that are not valid.

        Returns:
            A receipt or an error for each request, in the same order. Invalid requests keep their error.
        """
        valid = [each for each in requests if isinstance(each, TransferRequest)]
        results = iter(await self.batch_transfer(valid) if valid else ())
        return [next(results) if isinstance(each, TransferRequest) else each for each in requests]

    async def deposit(
        self,
        account_id: UUID,
        amount: Money,
        idempotency_key: str,
        descriptor: Mapping[str, str],
    ) -> Receipt:
        """Credit an account from the clearing account, once per idempotency key. For services only.

        The deposit's event carries `descriptor` unchanged.

        Returns:
            The transfer with the credited account's posting.
        """
        request = bank_pb2.DepositMoneyRequest(
            account_id=str(account_id),
            amount=money_to_proto(amount),
            idempotency_key=idempotency_key,
            descriptor=dict(descriptor),
        )
        response = await self._calls.unary(self._stub.DepositMoney, request)
        balance = money_from_proto(response.account_balance)
        posting = Posting(account_id, response.account_version, balance)
        return Receipt(transfer_from_proto(response.transfer), posting, response.is_replay)

    async def get_balance(self, account_id: UUID) -> Balance:
        """Return the account's current balance and version."""
        request = bank_pb2.GetBalanceRequest(account_id=str(account_id))
        response = await self._calls.unary(self._stub.GetBalance, request)
        return Balance(money_from_proto(response.balance), response.version, response.epoch)

    async def get_transfer(self, transfer_id: UUID) -> Transfer:
        """Return a transfer from or to an account that the caller may read."""
        request = bank_pb2.GetTransferRequest(id=str(transfer_id))
        response = await self._calls.unary(self._stub.GetTransfer, request)
        return transfer_from_proto(response.transfer)

    async def batch_get_transfers(self, ids: Sequence[UUID]) -> dict[UUID, Transfer | WalletError]:
        """Return a transfer or an error for each id; at most 1,000 ids."""
        request = bank_pb2.BatchGetTransfersRequest(ids=map(str, ids))
        response = await self._calls.unary(self._stub.BatchGetTransfers, request)
        return {
            UUID(result.key): transfer_from_proto(result.value)
            if result.HasField("value")
            else error_from_status(result.error)
            async for result in with_pauses(response.results)
        }

    async def list_transfers(
        self, account_id: UUID, reference: str, *, limit: int = 1_000, after: UUID | None = None
    ) -> TransferPage:
        """List the transfers from an account that have a reference, in id order.

        Args:
            account_id: account of the sender.
            reference: the sender's own id of the transfers.
            limit: maximum number of transfers in the page.
            after: id of the last transfer of the previous page.
        """
        request = bank_pb2.ListTransfersRequest(
            account_id=str(account_id),
            reference=reference,
            page_size=limit + 1,
            after_transfer_id=str(after or ""),
        )
        response = await self._calls.unary(self._stub.ListTransfers, request)
        transfers = tuple(await convert_all(transfer_from_proto, response.transfers))
        return TransferPage(transfers[:limit], has_more=len(transfers) > limit)

    async def batch_get_accounts(self, ids: Sequence[UUID]) -> dict[UUID, Account | WalletError]:
        """Return an account or an error for each id; at most 1,000 ids."""
        request = bank_pb2.BatchGetAccountsRequest(ids=map(str, ids))
        response = await self._calls.unary(self._stub.BatchGetAccounts, request)
        return {
            UUID(result.key): account_from_proto(result.value)
            if result.HasField("value")
            else error_from_status(result.error)
            async for result in with_pauses(response.results)
        }

    async def batch_get_balances(self, ids: Sequence[UUID]) -> dict[UUID, Balance | WalletError]:
        """Return the current balance and version, or an error, for each id; at most 1,000 ids."""
        request = bank_pb2.BatchGetAccountsRequest(ids=map(str, ids))
        response = await self._calls.unary(self._stub.BatchGetAccounts, request)
        errors = [each for each in response.results if not each.HasField("value")]
        balances: dict[UUID, Balance | WalletError] = {UUID(each.key): error_from_status(each.error) for each in errors}
        found = [each.value for each in response.results if each.HasField("value")]
        if found and not response.HasField("epoch"):  # a bank of an older release
            return balances | await call_each(self.get_balance, [UUID(each.id) for each in found])
        for each in found:
            balances[UUID(each.id)] = Balance(money_from_proto(each.balance), each.version, response.epoch)
        return balances

    async def batch_get_balances_at(
        self, requests: Sequence[BalanceRequest]
    ) -> dict[BalanceRequest, BalanceAt | WalletError]:
        """Return a balance after a version or at a time, or an error, for each request; at most 1,000 requests."""
        request = bank_pb2.BatchGetBalancesAtRequest(requests=map(balance_request_to_proto, requests))
        response = await self._calls.unary(self._stub.BatchGetBalancesAt, request)
        return {
            each: balance_at_from_proto(result.value) if result.HasField("value") else error_from_status(result.error)
            async for each, result in with_pauses(list(zip(requests, response.results, strict=True)))
        }

    async def get_balance_at(self, request: BalanceRequest) -> BalanceAt:
        """Return the balance of an account after a version or at a time."""
        balance = (await self.batch_get_balances_at([request]))[request]
        if isinstance(balance, WalletError):
            raise balance
        return balance

    async def get_account(self, account_id: UUID) -> Account:
        """Return an account."""
        account = (await self.batch_get_accounts([account_id]))[account_id]
        if isinstance(account, WalletError):
            raise account
        return account

    async def open_account(
        self, currency: str, idempotency_key: str, owner_id: str = "", raw_idempotency_key: str = ""
    ) -> OpenedAccount:
        """Open an empty account, once per idempotency key; see `TransferRequest` for the two forms of a key.

        The caller owns the account unless `owner_id` names another user, which only admins may do.
        """
        request = bank_pb2.OpenAccountRequest(
            currency=currency,
            owner_id=owner_id,
            idempotency_key=idempotency_key,
            raw_idempotency_key=raw_idempotency_key,
        )
        response = await self._calls.unary(self._stub.OpenAccount, request)
        return OpenedAccount(account_from_proto(response.account), response.is_replay)

    async def close_account(self, account_id: UUID) -> Account:
        """Close an empty account permanently and return it. Safe to retry."""
        request = bank_pb2.CloseAccountRequest(account_id=str(account_id))
        response = await self._calls.unary(self._stub.CloseAccount, request)
        return account_from_proto(response.account)

    async def freeze_account(self, account_id: UUID, frozen: str, reason: str) -> Account:
        """Refuse transfers of an account from now on, and return it. For operators and admins. Safe to retry.

        Args:
            account_id: id of the account.
            frozen: transfers to refuse: OUTGOING, INCOMING or ALL.
            reason: why the account is frozen.
        """
        request = bank_pb2.FreezeAccountRequest(
            account_id=str(account_id), frozen=freeze_to_proto(frozen), reason=reason
        )
        response = await self._calls.unary(self._stub.FreezeAccount, request)
        return account_from_proto(response.account)

    async def thaw_account(self, account_id: UUID, reason: str) -> Account:
        """End the freeze of an account, and return it. For operators and admins. Safe to retry."""
        request = bank_pb2.ThawAccountRequest(account_id=str(account_id), reason=reason)
        response = await self._calls.unary(self._stub.ThawAccount, request)
        return account_from_proto(response.account)

    async def set_account_floor(self, account_id: UUID, floor: Money, reason: str) -> Account:
        """Set the lower limit of the balance, and return the account. For admins. Safe to retry.

        Args:
            account_id: id of the account.
            floor: the limit, at or below zero, in the account's currency.
            reason: why the floor changes.
        """
        request = bank_pb2.SetAccountFloorRequest(
            account_id=str(account_id), floor=money_to_proto(floor), reason=reason
        )
        response = await self._calls.unary(self._stub.SetAccountFloor, request)
        return account_from_proto(response.account)

    async def list_account_changes(
        self, account_id: UUID, *, limit: int = 1_000, before: int | None = None
    ) -> list[AccountChange]:
        """List the changes of an account that are not operations, newest first. For admins.

        Args:
            account_id: id of the account.
            limit: maximum number of changes.
            before: changes below this revision are returned; None for the newest ones.
        """
        request = bank_pb2.ListAccountChangesRequest(
            account_id=str(account_id), page_size=limit, before_revision=before or 0
        )
        response = await self._calls.unary(self._stub.ListAccountChanges, request)
        return [change_from_proto(each) for each in response.changes]

    async def list_accounts(
        self, owner_id: str = "", *, limit: int = 1_000, after: UUID | None = None, before: UUID | None = None
    ) -> AccountPage:
        """List an owner's accounts in id order, including closed accounts.

        Args:
            owner_id: owner of the accounts; empty for the caller. Only operators and admins may name another user.
            limit: maximum number of accounts in the page.
            after: id of the last account of the previous page.
            before: the page has the last accounts before this id; `AccountPage.has_more` then means that there are
                earlier ones. Not together with `after`.
        """
        request = bank_pb2.ListAccountsRequest(
            owner_id=owner_id,
            page_size=limit + 1,
            after_account_id=str(after or ""),
            before_account_id=str(before or ""),
        )
        response = await self._calls.unary(self._stub.ListAccounts, request)
        messages: Iterable[bank_pb2.Account] = response.accounts
        if before is not None and not response.is_before:
            messages = await self._find_accounts_before(owner_id, before, limit + 1)
        accounts = tuple(await convert_all(account_from_proto, messages))
        page = accounts[:limit] if before is None else accounts[-limit:]
        return AccountPage(page, has_more=len(accounts) > limit)

    async def _find_accounts_before(self, owner_id: str, before: UUID, limit: int) -> Sequence[bank_pb2.Account]:
        """Return the last accounts before an id from a bank of an older release, which lists only forward."""
        found: deque[bank_pb2.Account] = deque(maxlen=limit)
        request = bank_pb2.ListAccountsRequest(owner_id=owner_id, page_size=_MAX_PAGE)
        while True:
            page = await self._calls.unary(self._stub.ListAccounts, request)
            found.extend(each for each in page.accounts if UUID(each.id) < before)
            request.after_account_id = page.next_after_account_id
            if not request.after_account_id or UUID(request.after_account_id) >= before:
                return found

    async def list_account_versions(self, page_size: int = 1_000) -> AsyncIterator[list[AccountVersion]]:
        """Yield the versions of all accounts, page by page in id order. For services only."""
        after = ""
        while True:
            request = bank_pb2.ListAccountVersionsRequest(page_size=page_size, after_account_id=after)
            page = await self._calls.unary(self._stub.ListAccountVersions, request)
            yield [AccountVersion(UUID(account.account_id), account.version) for account in page.accounts]
            after = page.next_after_account_id
            if not after:
                return

    async def list_events(self, account_id: UUID, after_version: int, page_size: int = 1_000) -> list[Event]:
        """List an account's operations after a version, in version order. For services only.

        Returns:
            At most `page_size` events; fewer mean that there are no more.
        """
        request = bank_pb2.ListEventsRequest(
            account_id=str(account_id),
            after_version=after_version,
            page_size=page_size,
        )
        response = await self._calls.unary(self._stub.ListEvents, request)
        return [event_from_proto(event, response.epoch) for event in response.events]

    async def verify_history(
        self, epoch: str, past_epochs: Iterable[str], postings: Sequence[HeldPosting]
    ) -> LedgerIdentity:
        """Compare the caller's stored postings with the ledger. For services only.

        Args:
            epoch: id of the ledger's epoch (see `types`) to which the caller's stored operations belong.
            past_epochs: past epochs that the caller has stored. The bank adds them to the ledger's past epochs.
            postings: postings of `epoch` that the caller has stored; at most 1,000.

        Returns:
            The ledger's identity. If the ledger's epoch is not `epoch`, the caller must rebuild its stored data.
        """
        request = bank_pb2.VerifyHistoryRequest(
            epoch=epoch,
            past_epochs=past_epochs,
            postings=[
                bank_pb2.VerifyHistoryRequest.HeldPosting(
                    account_id=str(each.account_id), version=each.version, transfer_id=str(each.transfer_id)
                )
                for each in postings
            ],
        )
        response = await self._calls.unary(self._stub.VerifyHistory, request)
        return LedgerIdentity(response.epoch, response.incarnation, tuple(response.past_epochs))
