"""All four services in one, over gRPC, and a gateway that calls them. The tests count its calls."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
import httpx

from gateway.app import build_app
from gateway.graphql.execution.options import GraphOptions
from gateway.http.cors import CorsOptions
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from kit.rpc import converters, status
from kit.rpc.server import Service, grpc_server
from protos.wallet.analytics.v1 import analytics_pb2, analytics_pb2_grpc
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.analytics.client import SERVICE as ANALYTICS
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.analytics.service.api import policy as analytics_policy
from subgraphs.bank.client import SERVICE as BANK
from subgraphs.bank.client import BankClient
from subgraphs.bank.service.api import policy as bank_policy
from subgraphs.card.client import SERVICE as CARD
from subgraphs.card.client import CardClient
from subgraphs.card.service.api import policy as card_policy
from subgraphs.identity.client import SERVICE as IDENTITY
from subgraphs.identity.client import IdentityClient
from subgraphs.identity.service.api import policy as identity_policy
from tests.conftest import Keys
from tests.integration.gateway import fake_services as messages
from wallet.errors import AccountNotFound, TopUpNotFound, TransferNotFound, UserNotFound
from wallet.money import Money


class Services(
    bank_pb2_grpc.BankServiceServicer,
    card_pb2_grpc.CardServiceServicer,
    analytics_pb2_grpc.AnalyticsServiceServicer,
    identity_pb2_grpc.IdentityServiceServicer,
):
    """All four services in one.

    Attributes:
        ids: known ids. An account, its owner, a transfer and a top-up share each id. Their amount is the position of
            the id, counted from 1. An account has one operation and one top-up.
        calls: names of the called methods with their keys.
        is_forward_only: the bank is of a release that lists accounts only forward.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.calls: list[tuple[str, list[str]]] = []
        self.is_forward_only = False

    def open(self) -> str:
        self.ids.append(str(uuid4()))
        return self.ids[-1]

    async def BatchGetAccounts(self, request: Any, context: Any) -> bank_pb2.BatchGetAccountsResponse:  # noqa: N802
        self.calls.append(("BatchGetAccounts", list(request.ids)))
        response = bank_pb2.BatchGetAccountsResponse()
        for key in request.ids:
            if (money := self._money(key)) is not None:
                account = bank_pb2.Account(id=key, owner_id=key, balance=money, status=bank_pb2.ACCOUNT_STATUS_OPEN)
                response.results.add(key=key, value=account)
            else:
                response.results.add(key=key, error=status.error_to_status(AccountNotFound(key)))
        return response

    async def BatchGetBalancesAt(self, request: Any, context: Any) -> bank_pb2.BatchGetBalancesAtResponse:  # noqa: N802
        self.calls.append(("BatchGetBalancesAt", [each.account_id for each in request.requests]))
        response = bank_pb2.BatchGetBalancesAtResponse()
        for each in request.requests:
            response.results.add(value=bank_pb2.BalanceAt(balance=self._money(each.account_id), version=each.version))
        return response

    async def BatchGetTransfers(self, request: Any, context: Any) -> bank_pb2.BatchGetTransfersResponse:  # noqa: N802
        self.calls.append(("BatchGetTransfers", list(request.ids)))
        response = bank_pb2.BatchGetTransfersResponse()
        for key in request.ids:
            if (money := self._money(key)) is not None:
                kind, sides = bank_pb2.TRANSFER_KIND_TRANSFER, {"sender_id": key, "recipient_id": key}
                response.results.add(key=key, value=bank_pb2.Transfer(id=key, kind=kind, amount=money, **sides))
            else:
                response.results.add(key=key, error=status.error_to_status(TransferNotFound(key)))
        return response

    async def BatchGetTopUps(self, request: Any, context: Any) -> card_pb2.BatchGetTopUpsResponse:  # noqa: N802
        self.calls.append(("BatchGetTopUps", list(request.ids)))
        response = card_pb2.BatchGetTopUpsResponse()
        for key in request.ids:
            if (money := self._money(key)) is not None:
                response.results.add(key=key, value=messages.top_up(id=key, amount=money))
            else:
                response.results.add(key=key, error=status.error_to_status(TopUpNotFound(key)))
        return response

    async def ListAccounts(self, request: Any, context: Any) -> bank_pb2.ListAccountsResponse:  # noqa: N802
        self.calls.append(("ListAccounts", [request.owner_id]))
        if request.before_account_id and not self.is_forward_only:
            page = [id_ for id_ in self.ids if id_ < request.before_account_id][-request.page_size :]
        else:
            page = [id_ for id_ in self.ids if id_ > request.after_account_id][: request.page_size]
        accounts = [
            bank_pb2.Account(
                id=id_,
                owner_id=request.owner_id or "alice",
                balance=self._money(id_),
                status=bank_pb2.ACCOUNT_STATUS_OPEN,
            )
            for id_ in page
        ]
        is_before = bool(request.before_account_id) and not self.is_forward_only
        next_id = page[-1] if page and page[-1] != self.ids[-1] else ""
        return bank_pb2.ListAccountsResponse(accounts=accounts, next_after_account_id=next_id, is_before=is_before)

    async def BatchGetUsers(self, request: Any, context: Any) -> identity_pb2.BatchGetUsersResponse:  # noqa: N802
        self.calls.append(("BatchGetUsers", list(request.ids)))
        response = identity_pb2.BatchGetUsersResponse()
        for key in request.ids:
            if key in self.ids:
                user = identity_pb2.User(id=key, username=f"u{key}", role=identity_pb2.ROLE_OPERATOR)
                response.results.add(key=key, value=user)
            else:
                response.results.add(key=key, error=status.error_to_status(UserNotFound(key)))
        return response

    def _money(self, key: str) -> Any:
        return converters.money_to_proto(Money.parse(str(self.ids.index(key) + 1))) if key in self.ids else None

    async def GetOperations(self, request: Any, context: Any) -> analytics_pb2.GetOperationsResponse:  # noqa: N802
        self.calls.append(("GetOperations", [request.account_id]))
        return self._operations(request)

    async def BatchGetOperations(  # noqa: N802
        self, request: Any, context: Any
    ) -> analytics_pb2.BatchGetOperationsResponse:
        self.calls.append(("BatchGetOperations", [each.account_id for each in request.requests]))
        response = analytics_pb2.BatchGetOperationsResponse()
        for each in request.requests:
            try:
                response.results.add(value=self._operations(each))
            except AccountNotFound as error:
                response.results.add(error=status.error_to_status(error))
        return response

    async def GetStatistics(self, request: Any, context: Any) -> analytics_pb2.GetStatisticsResponse:  # noqa: N802
        self.calls.append(("GetStatistics", [request.account_id]))
        return analytics_pb2.GetStatisticsResponse()

    async def ListTopUps(self, request: Any, context: Any) -> card_pb2.ListTopUpsResponse:  # noqa: N802
        self.calls.append(("ListTopUps", [request.account_id]))
        return self._top_ups(request)

    async def BatchListTopUps(self, request: Any, context: Any) -> card_pb2.BatchListTopUpsResponse:  # noqa: N802
        self.calls.append(("BatchListTopUps", [each.account_id for each in request.requests]))
        response = card_pb2.BatchListTopUpsResponse()
        for each in request.requests:
            try:
                response.results.add(value=self._top_ups(each))
            except AccountNotFound as error:
                response.results.add(error=status.error_to_status(error))
        return response

    def _operations(self, request: Any) -> analytics_pb2.GetOperationsResponse:
        operation = analytics_pb2.Operation(
            id=request.account_id,
            account_id=request.account_id,
            account_version=1,
            type=analytics_pb2.OPERATION_TYPE_TOP_UP,
            direction=analytics_pb2.DIRECTION_IN,
            amount=self._known_money(request.account_id),
            balance_after=self._known_money(request.account_id),
            counterparty_id=request.account_id,
        )
        return analytics_pb2.GetOperationsResponse(operations=[operation])

    def _top_ups(self, request: Any) -> card_pb2.ListTopUpsResponse:
        id_ = request.account_id
        listed = messages.top_up(id=id_, account_id=id_, transfer_id=id_, amount=self._known_money(id_))
        return card_pb2.ListTopUpsResponse(top_ups=[listed])

    def _known_money(self, account_id: str) -> Any:
        if account_id not in self.ids:
            raise AccountNotFound(account_id)
        return self._money(account_id)


@asynccontextmanager
async def gateway(
    keys: Keys, services: Services, *, federation: bool, is_older: bool = False
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway that calls these services over gRPC.

    Args:
        keys: keys of the tokens.
        services: the services.
        federation: whether the gateway has federation.
        is_older: analytics and the card service are of a release that lacks the batches of pages.
    """
    (listen,) = (f"{HOST}:{port}" for port in free_ports(1))
    registered = {
        BANK: Service(
            lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(services, server), bank_policy.POLICY
        ),
        CARD: Service(
            lambda server: card_pb2_grpc.add_CardServiceServicer_to_server(services, server), card_policy.POLICY
        ),
        ANALYTICS: Service(
            lambda server: analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server(services, server),
            analytics_policy.POLICY,
        ),
        IDENTITY: Service(
            lambda server: identity_pb2_grpc.add_IdentityServiceServicer_to_server(services, server),
            identity_policy.POLICY,
        ),
    }
    async with (
        _older_server(services, listen) if is_older else grpc_server(listen, keys.verifier(), registered),
        BankClient.connect(listen) as bank,
        CardClient.connect(listen) as card,
        AnalyticsClient.connect(listen) as analytics,
        IdentityClient.connect(listen) as identity,
    ):
        app = build_app(
            bank,
            analytics,
            card,
            identity,
            keys.verifier(),
            RateLimiter(RateLimitOptions()),
            asyncio.Event(),
            cors=CorsOptions(),
            body_limit_bytes=200_000,
            timeout_seconds=10,
            graph=GraphOptions(federation=federation),
        )
        headers = {"Authorization": f"Bearer {keys.user('alice')}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as http:
            yield http


@asynccontextmanager
async def _older_server(services: Services, listen: str) -> AsyncIterator[None]:
    """Serve the methods of a release that lacks the batches of pages."""
    handlers = [
        _handlers(bank_pb2, BANK, [services.ListAccounts]),
        _handlers(card_pb2, CARD, [services.ListTopUps]),
        _handlers(analytics_pb2, ANALYTICS, [services.GetOperations]),
    ]
    server = grpc.aio.server(handlers=handlers)
    server.add_insecure_port(listen)
    await server.start()
    yield
    await server.stop(None)


def _handlers(messages: Any, service: str, methods: Sequence[Callable[[Any, Any], Any]]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        service,
        {
            method.__name__: grpc.unary_unary_rpc_method_handler(
                method,
                getattr(messages, f"{method.__name__}Request").FromString,
                getattr(messages, f"{method.__name__}Response").SerializeToString,
            )
            for method in methods
        },
    )
