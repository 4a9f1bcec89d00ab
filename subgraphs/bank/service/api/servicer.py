"""gRPC servicer of the bank: converts requests, calls the use cases and converts their results."""

# ruff: noqa: D102, N802  bank.proto names and documents the methods
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final
from uuid import uuid4

import grpc

from kit.auth.principal import TokenVerifier
from kit.rpc import request_context, status
from kit.rpc.converters import money_to_proto
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from subgraphs.bank.service.api.converters import (
    account_to_proto,
    amount_from_proto,
    balance_at_to_proto,
    balance_request_from_proto,
    change_to_proto,
    command_from_proto,
    command_or_error_from_proto,
    epoch_from_text,
    event_to_proto,
    freeze_from_proto,
    held_posting_from_proto,
    id_from_text,
    ids_from_texts,
    outcome_to_proto,
    page_size_from_proto,
    receipt_to_proto,
    transfer_to_proto,
)
from subgraphs.bank.service.api.forwarding import Forwarding
from subgraphs.bank.service.api.policy import POLICY
from subgraphs.bank.service.application.service import Bank
from wallet.errors import AccountNotFound, InvalidInput, TransferNotFound
from wallet.money import DEFAULT_CURRENCY

SERVICE: Final = bank_pb2.DESCRIPTOR.services_by_name["BankService"].full_name

_MAX_TRANSFERS: Final = 8_000  # in one call
_MAX_FORWARDED: Final = 500  # in one call
_MAX_POSTINGS: Final = 1_000
_MAX_BALANCES: Final = 1_000  # in one call


class BankServicer(bank_pb2_grpc.BankServiceServicer):
    """Implements `bank.proto`. `kit.rpc.server` converts the `WalletError`s that methods raise to gRPC statuses."""

    def __init__(self, bank: Bank, verifier: TokenVerifier) -> None:
        """Args:
        bank: use cases of the bank.
        verifier: verifies the tokens of forwarded transfers.
        """
        self._bank = bank
        self._forwarding = Forwarding(bank, verifier, POLICY["TransferMoney"], f"/{SERVICE}/TransferMoney")
        self._process_id = str(uuid4())

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        bank_pb2_grpc.add_BankServiceServicer_to_server(self, server)

    async def TransferMoney(
        self,
        request: bank_pb2.TransferMoneyRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.TransferMoneyResponse:
        command = command_from_proto(request_context.current_principal(), request)
        transfer = await self._bank.transfer(command)
        return receipt_to_proto(transfer, is_replay=command.is_replay(transfer))

    async def BatchTransferMoney(
        self,
        request: bank_pb2.BatchTransferMoneyRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.BatchTransferMoneyResponse:
        if len(request.transfers) > _MAX_TRANSFERS:
            raise InvalidInput.for_field("transfers", f"must have at most {_MAX_TRANSFERS} entries")
        caller = request_context.current_principal()
        commands = [command_or_error_from_proto(caller, each) for each in request.transfers]
        outcomes = await self._bank.batch_transfer(commands)
        return bank_pb2.BatchTransferMoneyResponse(results=map(outcome_to_proto, commands, outcomes))

    async def ForwardTransfers(
        self,
        request: bank_pb2.ForwardTransfersRequest,
        context: Any,  # noqa: ARG002
    ) -> AsyncGenerator[bank_pb2.ForwardTransfersResponse, None]:
        if not 0 < len(request.items) <= _MAX_FORWARDED:
            raise InvalidInput.for_field("items", f"must have 1 to {_MAX_FORWARDED} entries")
        async with aclosing(self._forwarding.execute(request.items)) as batches:
            async for results in batches:
                yield bank_pb2.ForwardTransfersResponse(results=results, process_id=self._process_id)

    async def DepositMoney(
        self,
        request: bank_pb2.DepositMoneyRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.DepositMoneyResponse:
        transfer, is_replay = await self._bank.deposit(
            id_from_text("accountId", request.account_id),
            amount_from_proto(request.amount),
            request.idempotency_key,
            dict(request.descriptor),
        )
        return bank_pb2.DepositMoneyResponse(
            transfer=transfer_to_proto(transfer),
            account_version=transfer.recipient.version,
            account_balance=money_to_proto(transfer.recipient.balance_after),
            is_replay=is_replay,
        )

    async def GetBalance(
        self,
        request: bank_pb2.GetBalanceRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.GetBalanceResponse:
        account, epoch = await self._bank.get_account_and_epoch(
            request_context.current_principal(), id_from_text("accountId", request.account_id)
        )
        return bank_pb2.GetBalanceResponse(
            balance=money_to_proto(account.balance), version=account.version, epoch=epoch
        )

    async def GetTransfer(
        self,
        request: bank_pb2.GetTransferRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.GetTransferResponse:
        transfer = await self._bank.get_transfer(request_context.current_principal(), id_from_text("id", request.id))
        return bank_pb2.GetTransferResponse(transfer=transfer_to_proto(transfer))

    async def ListTransfers(
        self,
        request: bank_pb2.ListTransfersRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ListTransfersResponse:
        limit = page_size_from_proto(request.page_size)
        transfers = await self._bank.list_transfers_with_reference(
            request_context.current_principal(),
            id_from_text("accountId", request.account_id),
            request.reference,
            id_from_text("afterTransferId", request.after_transfer_id) if request.after_transfer_id else None,
            limit,
        )
        return bank_pb2.ListTransfersResponse(
            transfers=map(transfer_to_proto, transfers),
            next_after_transfer_id=str(transfers[-1].id) if len(transfers) == limit else "",
        )

    async def BatchGetAccounts(
        self,
        request: bank_pb2.BatchGetAccountsRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.BatchGetAccountsResponse:
        ids = ids_from_texts(request.ids)
        accounts, epoch = await self._bank.get_accounts_and_epoch(
            request_context.current_principal(), list(ids.values())
        )
        return bank_pb2.BatchGetAccountsResponse(
            epoch=epoch,
            results=[
                bank_pb2.BatchGetAccountsResponse.Result(key=text, value=account_to_proto(accounts[id_]))
                if id_ in accounts
                else bank_pb2.BatchGetAccountsResponse.Result(
                    key=text,
                    error=status.error_to_status(AccountNotFound(str(id_))),
                )
                for text, id_ in ids.items()
            ],
        )

    async def BatchGetBalancesAt(
        self,
        request: bank_pb2.BatchGetBalancesAtRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.BatchGetBalancesAtResponse:
        if len(request.requests) > _MAX_BALANCES:
            raise InvalidInput.for_field("requests", f"must have at most {_MAX_BALANCES} entries")
        requests = [balance_request_from_proto(each) for each in request.requests]
        balances = await self._bank.get_balances_at(request_context.current_principal(), requests)
        result = bank_pb2.BatchGetBalancesAtResponse.Result
        return bank_pb2.BatchGetBalancesAtResponse(
            results=[
                result(error=status.error_to_status(AccountNotFound(str(each.account_id))))
                if balance is None
                else result(value=balance_at_to_proto(balance))
                for each, balance in zip(requests, balances, strict=True)
            ]
        )

    async def BatchGetTransfers(
        self,
        request: bank_pb2.BatchGetTransfersRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.BatchGetTransfersResponse:
        ids = ids_from_texts(request.ids)
        transfers = await self._bank.get_transfers(request_context.current_principal(), list(ids.values()))
        return bank_pb2.BatchGetTransfersResponse(
            results=[
                bank_pb2.BatchGetTransfersResponse.Result(key=text, value=transfer_to_proto(transfers[id_]))
                if id_ in transfers
                else bank_pb2.BatchGetTransfersResponse.Result(
                    key=text,
                    error=status.error_to_status(TransferNotFound(str(id_))),
                )
                for text, id_ in ids.items()
            ],
        )

    async def OpenAccount(
        self,
        request: bank_pb2.OpenAccountRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.OpenAccountResponse:
        account, is_replay = await self._bank.open_account(
            request_context.current_principal(),
            request.owner_id,
            request.currency or DEFAULT_CURRENCY,
            request.idempotency_key,
            request.raw_idempotency_key or None,
        )
        return bank_pb2.OpenAccountResponse(account=account_to_proto(account), is_replay=is_replay)

    async def CloseAccount(
        self,
        request: bank_pb2.CloseAccountRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.CloseAccountResponse:
        account = await self._bank.close_account(
            request_context.current_principal(), id_from_text("accountId", request.account_id)
        )
        return bank_pb2.CloseAccountResponse(account=account_to_proto(account))

    async def FreezeAccount(
        self,
        request: bank_pb2.FreezeAccountRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.FreezeAccountResponse:
        account = await self._bank.freeze_account(
            request_context.current_principal(),
            id_from_text("accountId", request.account_id),
            freeze_from_proto(request.frozen),
            request.reason,
        )
        return bank_pb2.FreezeAccountResponse(account=account_to_proto(account))

    async def ThawAccount(
        self,
        request: bank_pb2.ThawAccountRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ThawAccountResponse:
        account = await self._bank.thaw_account(
            request_context.current_principal(), id_from_text("accountId", request.account_id), request.reason
        )
        return bank_pb2.ThawAccountResponse(account=account_to_proto(account))

    async def SetAccountFloor(
        self,
        request: bank_pb2.SetAccountFloorRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.SetAccountFloorResponse:
        account = await self._bank.set_account_floor(
            request_context.current_principal(),
            id_from_text("accountId", request.account_id),
            amount_from_proto(request.floor, "floor"),
            request.reason,
        )
        return bank_pb2.SetAccountFloorResponse(account=account_to_proto(account))

    async def ListAccountChanges(
        self,
        request: bank_pb2.ListAccountChangesRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ListAccountChangesResponse:
        changes = await self._bank.list_account_changes(
            id_from_text("accountId", request.account_id),
            request.before_revision or None,
            page_size_from_proto(request.page_size),
        )
        return bank_pb2.ListAccountChangesResponse(changes=map(change_to_proto, changes))

    async def ListAccounts(
        self,
        request: bank_pb2.ListAccountsRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ListAccountsResponse:
        limit = page_size_from_proto(request.page_size)
        after = id_from_text("afterAccountId", request.after_account_id) if request.after_account_id else None
        before = id_from_text("beforeAccountId", request.before_account_id) if request.before_account_id else None
        if after is not None and before is not None:
            raise InvalidInput.for_field("beforeAccountId", "must not be combined with afterAccountId")
        caller = request_context.current_principal()
        accounts = await self._bank.list_accounts(caller, request.owner_id, after, limit, before)
        has_next = before is None and len(accounts) == limit
        return bank_pb2.ListAccountsResponse(
            accounts=[account_to_proto(account) for account in accounts],
            next_after_account_id=str(accounts[-1].id) if has_next else "",
            is_before=before is not None,
        )

    async def ListAccountVersions(
        self,
        request: bank_pb2.ListAccountVersionsRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ListAccountVersionsResponse:
        limit = page_size_from_proto(request.page_size)
        after = id_from_text("afterAccountId", request.after_account_id) if request.after_account_id else None
        versions = await self._bank.list_versions(after, limit)
        return bank_pb2.ListAccountVersionsResponse(
            accounts=[
                bank_pb2.ListAccountVersionsResponse.AccountVersion(account_id=str(id_), version=version)
                for id_, version in versions
            ],
            next_after_account_id=str(versions[-1][0]) if len(versions) == limit else "",
        )

    async def ListEvents(
        self,
        request: bank_pb2.ListEventsRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.ListEventsResponse:
        transfers, epoch = await self._bank.list_transfers(
            id_from_text("accountId", request.account_id),
            request.after_version,
            page_size_from_proto(request.page_size),
        )
        return bank_pb2.ListEventsResponse(
            events=[event_to_proto(transfer) for transfer in transfers],
            epoch=epoch,
        )

    async def VerifyHistory(
        self,
        request: bank_pb2.VerifyHistoryRequest,
        context: Any,  # noqa: ARG002
    ) -> bank_pb2.VerifyHistoryResponse:
        if len(request.postings) > _MAX_POSTINGS:
            raise InvalidInput.for_field("postings", f"must have at most {_MAX_POSTINGS} entries")
        identity = await self._bank.verify_history(
            epoch_from_text("epoch", request.epoch),
            [epoch_from_text("pastEpochs", each) for each in request.past_epochs],
            [held_posting_from_proto(each) for each in request.postings],
        )
        return bank_pb2.VerifyHistoryResponse(
            epoch=identity.epoch, incarnation=identity.incarnation, past_epochs=identity.past_epochs
        )
