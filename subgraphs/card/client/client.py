"""Typed gRPC client of the card service."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final
from uuid import UUID

from kit.rpc.batches import call_in_batches
from kit.rpc.channel import ClientLimits, RpcClient, open_channel
from kit.rpc.client_address import address_metadata
from kit.rpc.converters import money_to_proto
from kit.rpc.request_context import current_request
from kit.rpc.status import error_from_status
from kit.rpc.tls import TLS
from kit.runtime.pauses import with_pauses
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from subgraphs.card.client.converters import (
    card_details_to_proto,
    top_up_from_proto,
    top_up_page_from_proto,
    top_up_page_request_to_proto,
)
from subgraphs.card.client.types import CardDetails, CreatedTopUp, TopUp, TopUpPage, TopUpPageRequest
from wallet import paging
from wallet.errors import WalletError
from wallet.money import Money

SERVICE: Final = card_pb2.DESCRIPTOR.services_by_name["CardService"].full_name

_READS: Final = ("GetTopUp", "BatchGetTopUps", "ListTopUps", "BatchListTopUps")
_DEPENDENCY: Final = "the card service"  # in error messages


class CardClient:
    """Calls the card service with the identity of the current caller (`kit.rpc.request_context`).

    Every method raises the `WalletError` that the service returns. It raises Unavailable if the service is unavailable,
    and DeadlineExceeded if the service does not respond in time. After these two errors the outcome of a write is
    unknown: retry with the same idempotency key. Reads are always safe to retry.
    """

    def __init__(
        self,
        stub: "card_pb2_grpc.CardServiceAsyncStub",
        limits: ClientLimits = ClientLimits(),
        gateway_token: Callable[[], str] | None = None,
    ) -> None:
        self._stub = stub
        self._calls = RpcClient(_DEPENDENCY, limits)
        self._gateway_token = gateway_token

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        target: str,
        *,
        limits: ClientLimits = ClientLimits(),
        tls: TLS | None = None,
        gateway_token: Callable[[], str] | None = None,
    ) -> AsyncIterator["CardClient"]:
        """Yield a client of the card service at a gRPC target. The client connects at the first call.

        Args:
            target: gRPC target.
            limits: limits of the calls.
            tls: certificates; None: plaintext.
            gateway_token: returns a token of the gateway. The token is sent with each top-up and proves that the client
                address of the request comes from the gateway. None: no address is sent.
        """
        async with open_channel(target, SERVICE, _READS, tls, name="card") as opened:
            yield cls(card_pb2_grpc.CardServiceStub(opened), limits, gateway_token)

    async def create_top_up(
        self,
        account_id: UUID,
        amount: Money,
        card: CardDetails,
        idempotency_key: str,
        raw_idempotency_key: str = "",
    ) -> CreatedTopUp:
        """Start a top-up once per idempotency key.

        Args:
            account_id: account that receives the amount.
            amount: amount to take from the card.
            card: card to charge.
            idempotency_key: identifies the request for this caller.
            raw_idempotency_key: the key exactly as the client sent it, with quotation marks or spaces around it.
                Earlier releases stored the key in this form. Empty if the client sent `idempotency_key` itself.

        Returns:
            The top-up in its current state, which may be final. A declined card is not an error: the status is
            DECLINED.
        """
        request = card_pb2.ProcessCardTopUpRequest(
            account_id=str(account_id),
            amount=money_to_proto(amount),
            card=card_details_to_proto(card),
            idempotency_key=idempotency_key,
            raw_idempotency_key=raw_idempotency_key,
        )
        host = current_request.get().client_address
        stated = address_metadata(host, self._gateway_token()) if host and self._gateway_token else ()
        response = await self._calls.unary(self._stub.ProcessCardTopUp, request, stated)
        return CreatedTopUp(top_up_from_proto(response.top_up), response.is_replay)

    async def get_top_up(self, top_up_id: UUID) -> TopUp:
        """Return the current state of a top-up."""
        request = card_pb2.GetTopUpRequest(id=str(top_up_id))
        response = await self._calls.unary(self._stub.GetTopUp, request)
        return top_up_from_proto(response.top_up)

    async def batch_get_top_ups(self, ids: Sequence[UUID]) -> dict[UUID, TopUp | WalletError]:
        """Return a top-up or an error for each id; at most 1,000 ids."""
        request = card_pb2.BatchGetTopUpsRequest(ids=map(str, ids))
        response = await self._calls.unary(self._stub.BatchGetTopUps, request)
        return {
            UUID(result.key): top_up_from_proto(result.value)
            if result.HasField("value")
            else error_from_status(result.error)
            async for result in with_pauses(response.results)
        }

    async def list_top_ups(
        self, account_id: UUID, *, limit: int, older_than: UUID | None = None, newer_than: UUID | None = None
    ) -> TopUpPage:
        """Return a page of an account's top-ups, newest first; the arguments are those of `TopUpPageRequest`."""
        return await self._list_top_ups(TopUpPageRequest(account_id, limit, older_than, newer_than))

    async def _list_top_ups(self, request: TopUpPageRequest) -> TopUpPage:
        return await top_up_page_from_proto(
            await self._calls.unary(self._stub.ListTopUps, top_up_page_request_to_proto(request))
        )

    async def batch_list_top_ups(
        self, requests: Sequence[TopUpPageRequest]
    ) -> dict[TopUpPageRequest, TopUpPage | WalletError]:
        """Return a page, or the error that `list_top_ups` would raise, for each request, with as few calls as possible.

        A call for several pages returns at most 100 pages with 5,000 top-ups. A card service of an older release gets a
        call for each page.
        """
        batches = paging.split_batch(requests, lambda request: request.limit)
        return await call_in_batches(self._list_top_ups, self._batch_list_top_ups, batches)

    async def _batch_list_top_ups(
        self, requests: Sequence[TopUpPageRequest]
    ) -> Sequence[TopUpPage | WalletError] | None:
        message = card_pb2.BatchListTopUpsRequest(requests=map(top_up_page_request_to_proto, requests))
        response = await self._calls.unary_if_known(self._stub.BatchListTopUps, message)
        if response is None:
            return None
        return [
            await top_up_page_from_proto(result.value) if result.HasField("value") else error_from_status(result.error)
            for result in response.results
        ]

    async def watch_top_up(self, top_up_id: UUID) -> AsyncGenerator[TopUp, None]:
        """Yield the current state of a top-up, then its state after each change, until the top-up is final."""
        request = card_pb2.WatchTopUpRequest(id=str(top_up_id))
        async with aclosing(self._calls.stream(self._stub.WatchTopUp, request)) as responses:
            async for response in responses:
                yield top_up_from_proto(response.top_up)
