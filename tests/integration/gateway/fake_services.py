"""Fake services over real gRPC, with responses that a test sets and a record of their requests."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

from kit.rpc import converters, request_context, status
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from wallet.errors import AccountNotFound, InternalError, TopUpNotFound, Unavailable, WalletError
from wallet.money import Money

ACCOUNT = UUID("123e4567-e89b-12d3-a456-426614174000")
DEPOSIT = UUID("0197a0b0-0000-7000-8000-000000000001")
CLEARING = UUID(int=1)


def top_up(status: str = "CAPTURED", version: int = 3, **more: Any) -> card_pb2.TopUp:
    """Build a top-up of 10.00 RUB as the card service returns it."""
    fields = {
        "id": str(uuid4()),
        "account_id": str(ACCOUNT),
        "amount": converters.money_to_proto(Money.parse("10.00")),
        "status": card_pb2.TopUpStatus.Value(f"TOP_UP_STATUS_{status}"),
        "card": card_pb2.Card(brand=card_pb2.CARD_BRAND_VISA, last_four="4242"),
        "version": version,
    }
    message = card_pb2.TopUp(**fields | more)
    message.created_at.FromJsonString("2026-01-02T03:04:05.678901Z")
    message.updated_at.FromJsonString("2026-01-02T03:04:06.789012Z")
    return message


class FakeCard(card_pb2_grpc.CardServiceServicer):
    """Fake card service.

    Attributes:
        result: top-up that the unary calls return, or error that they raise.
        is_replay: whether created top-ups are marked as replays.
        listed: top-ups of the account, newest first.
        streams: one list of states for each of the next `WatchTopUp` calls; an error ends the stream.
        requests: received requests, in order.
        callers: subjects of the callers of the unary calls, in order.
        metadata: metadata of the calls that start a top-up, in order.
    """

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.result: card_pb2.TopUp | WalletError = top_up()
        self.is_replay = False
        self.listed: list[card_pb2.TopUp] = []
        self.streams: list[list[card_pb2.TopUp | WalletError]] = []
        self.requests: list[Any] = []
        self.callers: list[str] = []

    def _respond(self, request: Any) -> card_pb2.TopUp:
        self.requests.append(request)
        self.callers.append(request_context.current_principal().subject)
        if isinstance(self.result, WalletError):
            raise self.result
        return self.result

    async def ProcessCardTopUp(self, request: Any, context: Any) -> card_pb2.ProcessCardTopUpResponse:  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        return card_pb2.ProcessCardTopUpResponse(top_up=self._respond(request), is_replay=self.is_replay)

    async def GetTopUp(self, request: Any, context: Any) -> card_pb2.GetTopUpResponse:  # noqa: N802
        return card_pb2.GetTopUpResponse(top_up=self._respond(request))

    async def BatchGetTopUps(self, request: Any, context: Any) -> card_pb2.BatchGetTopUpsResponse:  # noqa: N802
        known = self._respond(request)
        response = card_pb2.BatchGetTopUpsResponse()
        for key in request.ids:
            if key == known.id:
                response.results.add(key=key, value=known)
            else:
                response.results.add(key=key, error=status.error_to_status(TopUpNotFound(key)))
        return response

    async def ListTopUps(self, request: Any, context: Any) -> card_pb2.ListTopUpsResponse:  # noqa: N802
        self._respond(request)
        ids = [each.id for each in self.listed]
        if request.newer_than:
            end = len(ids) if UUID(request.newer_than).int == 0 else ids.index(request.newer_than)
            start = max(0, end - request.page_size)
        else:
            start = ids.index(request.older_than) + 1 if request.older_than else 0
            end = start + request.page_size
        return card_pb2.ListTopUpsResponse(
            top_ups=self.listed[start:end], has_older=end < len(ids), has_newer=start > 0
        )

    async def WatchTopUp(self, request: Any, context: Any) -> AsyncIterator[card_pb2.WatchTopUpResponse]:  # noqa: N802
        self.requests.append(request)
        for state in self.streams.pop(0):
            if isinstance(state, WalletError):
                raise state
            yield card_pb2.WatchTopUpResponse(top_up=state)


class FakeBank(bank_pb2_grpc.BankServiceServicer):
    """Fake bank with one account of 990.00 RUB. A transfer with any id is a deposit of 10.00 RUB into this account.

    `is_away` fails batches of transfers as a whole.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.is_away = False

    async def BatchGetAccounts(self, request: Any, context: Any) -> bank_pb2.BatchGetAccountsResponse:  # noqa: N802
        self.requests.append(request)
        response = bank_pb2.BatchGetAccountsResponse()
        for key in request.ids:
            if key == str(ACCOUNT):
                balance = converters.money_to_proto(Money.parse("990.00"))
                account = bank_pb2.Account(id=key, balance=balance, status=bank_pb2.ACCOUNT_STATUS_OPEN)
                response.results.add(key=key, value=account)
            else:
                response.results.add(key=key, error=status.error_to_status(AccountNotFound(key)))
        return response

    async def TransferMoney(self, request: Any, context: Any) -> bank_pb2.TransferMoneyResponse:  # noqa: N802
        transfer = bank_pb2.Transfer(
            id=str(uuid4()),
            kind=bank_pb2.TRANSFER_KIND_TRANSFER,
            sender_id=request.sender_id,
            recipient_id=request.recipient_id,
            amount=request.amount,
        )
        return bank_pb2.TransferMoneyResponse(transfer=transfer, sender_balance=request.amount, sender_version=1)

    async def BatchTransferMoney(  # noqa: N802
        self, request: Any, context: Any
    ) -> bank_pb2.BatchTransferMoneyResponse:
        """Execute every transfer. An amount of 404 is refused, 500 and 503 have an unknown outcome, 100 is a replay."""
        self.requests.append(request)
        if self.is_away:
            raise Unavailable("the bank")
        errors = {404: AccountNotFound("the-account"), 500: InternalError(), 503: Unavailable("the ledger")}
        response = bank_pb2.BatchTransferMoneyResponse()
        for each in request.transfers:
            if (error := errors.get(each.amount.units)) is not None:
                response.results.add(error=status.error_to_status(error))
            else:
                made = await self.TransferMoney(each, context)
                made.is_replay = each.amount.units == 100
                response.results.add(value=made)
        return response

    async def ForwardTransfers(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[bank_pb2.ForwardTransfersResponse]:
        """Execute every item; the tokens of the items are not verified."""
        response = bank_pb2.ForwardTransfersResponse(process_id="fake")
        for index, item in enumerate(request.items):
            response.results.add(index=index, value=await self.TransferMoney(item.transfer, context))
        yield response

    async def BatchGetTransfers(self, request: Any, context: Any) -> bank_pb2.BatchGetTransfersResponse:  # noqa: N802
        self.requests.append(request)
        response = bank_pb2.BatchGetTransfersResponse()
        for key in request.ids:
            deposit = bank_pb2.Transfer(
                id=key,
                kind=bank_pb2.TRANSFER_KIND_DEPOSIT,
                sender_id=str(CLEARING),
                recipient_id=str(ACCOUNT),
                amount=converters.money_to_proto(Money.parse("10.00")),
            )
            response.results.add(key=key, value=deposit)
        return response
