"""Federation: entities by key in few RPCs, endpoints of the subgraphs, and the setting that turns federation off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.app import build_app
from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.federation.registry import SUBGRAPHS
from gateway.http.cors import CorsOptions
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from kit.rpc import converters, status
from kit.rpc.server import Service, grpc_server
from protos.wallet.bank.v1 import bank_pb2, bank_pb2_grpc
from protos.wallet.card.v1 import card_pb2, card_pb2_grpc
from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.analytics.client import AnalyticsClient
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

ENTITIES = """
    query($representations: [_Any!]!) {
      _entities(representations: $representations) {
        __typename
        ... on Account { id balance { amount } createdAt }
        ... on Transfer { id sender { id } recipient { id } amount { amount } createdAt }
      }
    }
"""
MERGED = "/graphql"
BOTH = pytest.mark.parametrize("path", [MERGED, "/subgraphs/bank/graphql"])

Execute = Callable[..., Awaitable[dict[str, Any]]]


class Services(
    bank_pb2_grpc.BankServiceServicer, card_pb2_grpc.CardServiceServicer, identity_pb2_grpc.IdentityServiceServicer
):
    """Fake bank, card and identity services.

    Attributes:
        ids: known ids. An account, its owner, a transfer and a top-up share each id. Their amount is the position of
            the id, counted from 1.
        calls: names of the called methods with their keys.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.calls: list[tuple[str, list[str]]] = []

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
        page = [id_ for id_ in self.ids if id_ > request.after_account_id][: request.page_size]
        accounts = [
            bank_pb2.Account(id=id_, balance=self._money(id_), status=bank_pb2.ACCOUNT_STATUS_OPEN) for id_ in page
        ]
        return bank_pb2.ListAccountsResponse(accounts=accounts)

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


@pytest.fixture
async def execute(services: Services, keys: Keys) -> AsyncIterator[Execute]:
    """Function that sends a query to a path as alice, and returns the JSON of the response."""
    async with gateway(keys, services, federation=True) as http:

        async def execute(query: str, path: str = MERGED, **variables: Any) -> dict[str, Any]:
            response = await http.post(path, json={"query": query, "variables": variables})
            assert response.status_code == 200, response.text
            result: dict[str, Any] = response.json()
            return result

        yield execute


@pytest.fixture
def services() -> Services:
    return Services()  # type: ignore[abstract]  # the other methods are not called


@asynccontextmanager
async def gateway(keys: Keys, services: Services, *, federation: bool) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway that calls these services over gRPC. Analytics is not running."""
    listen, unused = (f"{HOST}:{port}" for port in free_ports(2))
    registered = {
        BANK: Service(
            lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(services, server), bank_policy.POLICY
        ),
        CARD: Service(
            lambda server: card_pb2_grpc.add_CardServiceServicer_to_server(services, server), card_policy.POLICY
        ),
        IDENTITY: Service(
            lambda server: identity_pb2_grpc.add_IdentityServiceServicer_to_server(services, server),
            identity_policy.POLICY,
        ),
    }
    async with (
        grpc_server(listen, keys.verifier(), registered),
        BankClient.connect(listen) as bank,
        CardClient.connect(listen) as card,
        AnalyticsClient.connect(unused) as analytics,
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


def account(id_: str) -> dict[str, str]:
    return {"__typename": "Account", "id": id_}


def error_codes(response: httpx.Response) -> list[str]:
    return [error["extensions"]["code"] for error in response.json()["errors"]]


def transfer(id_: str) -> dict[str, str]:
    return {"__typename": "Transfer", "id": id_}


def top_up(id_: str) -> dict[str, str]:
    return {"__typename": "TopUp", "id": id_}


class TestLoaders:
    async def test_accounts_of_one_query_are_one_rpc(self, services: Services, execute: Execute) -> None:
        a, b = services.open(), services.open()
        query = """
            query($a: ID!, $b: ID!) {
              x: account(id: $a) { balance { amount } createdAt } y: account(id: $b) { id } z: account(id: $a) { id }
            }
        """
        response = await execute(query, a=a, b=b)
        assert [response["data"][alias]["id"] for alias in "yz"] == [b, a]
        assert services.calls == [("BatchGetAccounts", [a, b])]

    async def test_transfers_of_one_query_are_one_rpc(self, services: Services, execute: Execute) -> None:
        t, u = services.open(), services.open()
        query = (
            "query($t: ID!, $u: ID!) { x: transfer(id: $t) { amount { amount } } y: transfer(id: $u) { createdAt } }"
        )
        response = await execute(query, t=t, u=u)
        assert response["data"]["x"] == {"amount": {"amount": "1.00"}}
        assert services.calls == [("BatchGetTransfers", [t, u])]

    async def test_users_of_one_query_are_one_rpc(self, services: Services, execute: Execute) -> None:
        a, b = services.open(), services.open()
        query = """
            query($a: ID!, $b: ID!) {
              x: account(id: $a) { owner { username role } } y: account(id: $b) { owner { id username } status }
            }
        """
        response = await execute(query, a=a, b=b)
        assert response["data"]["x"] == {"owner": {"username": f"u{a}", "role": "OPERATOR"}}
        assert response["data"]["y"] == {"owner": {"id": b, "username": f"u{b}"}, "status": "OPEN"}
        assert services.calls == [("BatchGetAccounts", [a, b]), ("BatchGetUsers", [a, b])]

    async def test_caller_id_comes_from_the_token(self, services: Services, execute: Execute) -> None:
        assert (await execute("{ me { id } }"))["data"] == {"me": {"id": "alice"}}
        assert services.calls == []
        unknown = await execute("{ me { id username } }")
        assert unknown["data"] == {"me": None}
        assert [error["extensions"]["code"] for error in unknown["errors"]] == ["USER_NOT_FOUND"]

    async def test_accounts_of_a_user_from_another_issuer_are_listed(
        self, services: Services, execute: Execute
    ) -> None:
        id_ = services.open()
        response = await execute("{ me { accounts { edges { node { id } } } } }")
        assert response["data"]["me"] == {"accounts": {"edges": [{"node": {"id": id_}}]}}
        assert services.calls == [("ListAccounts", ["alice"])]


class TestAccountPages:
    async def test_accounts_are_paged(self, services: Services, execute: Execute) -> None:
        ids = sorted(services.open() for _ in range(5))
        services.ids.sort()
        query = """
            query($first: Int, $after: String) {
              accounts(first: $first, after: $after) {
                edges { cursor node { id balance { amount } } }
                pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
              }
            }
        """
        ids_of_pages, after = [], None
        for more in (True, True, False):
            page = (await execute(query, first=2, after=after))["data"]["accounts"]
            info, cursors = page["pageInfo"], [edge["cursor"] for edge in page["edges"]]
            assert info == {
                "hasNextPage": more,
                "hasPreviousPage": after is not None,
                "startCursor": cursors[0],
                "endCursor": cursors[-1],
            }
            ids_of_pages += [edge["node"]["id"] for edge in page["edges"]]
            after = info["endCursor"]
        assert ids_of_pages == ids
        nothing = (await execute(query, first=2, after=after))["data"]["accounts"]
        assert nothing["edges"] == []
        assert services.calls == [("ListAccounts", [""])] * 4  # the accounts of the page are not loaded again

    @pytest.mark.parametrize("arguments", ["first: 0", "first: 1001", 'after: "junk"', 'after: "djA"'])
    async def test_invalid_page_arguments_are_refused(
        self, services: Services, execute: Execute, arguments: str
    ) -> None:
        response = await execute(f"{{ accounts({arguments}) {{ edges {{ cursor }} }} }}")
        assert response["data"] == {"accounts": None}
        assert [error["extensions"]["code"] for error in response["errors"]] == ["INVALID_INPUT"]
        assert services.calls == []


@BOTH
class TestEntities:
    async def test_entities_are_one_rpc_per_type_in_the_requested_order(
        self, services: Services, execute: Execute, path: str
    ) -> None:
        a, b, t, u = (services.open() for _ in range(4))
        wanted = [account(b), transfer(t), account(a), transfer(u), account(b), transfer(t)]

        response = await execute(ENTITIES, path, representations=wanted)

        resolved = response["data"]["_entities"]
        assert [{"__typename": each["__typename"], "id": each["id"]} for each in resolved] == wanted
        assert resolved[0]["balance"] == {"amount": "2.00"}
        assert resolved[1]["amount"] == {"amount": "3.00"}
        assert (resolved[4], resolved[5]) == (resolved[0], resolved[1])
        assert sorted(services.calls) == [("BatchGetAccounts", [b, a]), ("BatchGetTransfers", [t, u])]

    async def test_invalid_representation_is_null_and_the_others_are_resolved(
        self, services: Services, execute: Execute, path: str
    ) -> None:
        a, missing = services.open(), str(uuid4())
        bad = [
            (account(missing), "ACCOUNT_NOT_FOUND"),
            (transfer(missing), "TRANSFER_NOT_FOUND"),
            (account("42"), "INVALID_INPUT"),
            ({"__typename": "Account", "id": 42}, "INVALID_INPUT"),
            ({"__typename": "Account"}, "INVALID_INPUT"),
            ({"id": a}, "INVALID_INPUT"),
            ({"__typename": "Money", "id": a}, "INVALID_INPUT"),
            ({"__typename": ["Account"], "id": a}, "INVALID_INPUT"),
            ("Account", "INVALID_INPUT"),
            ([], "INVALID_INPUT"),
        ]
        wanted = [account(a), *(each for each, _ in bad), transfer(a)]

        response = await execute(ENTITIES, path, representations=wanted)

        first, *between, last = response["data"]["_entities"]
        assert (first["__typename"], last["__typename"]) == ("Account", "Transfer")
        assert between == [None] * len(bad)
        errors = {each["path"][1]: each["extensions"]["code"] for each in response["errors"]}
        assert errors == {place: code for place, (_, code) in enumerate(bad, start=1)}
        assert all(each["extensions"]["requestId"] for each in response["errors"])
        no_uuid = "representations: must have a UUID as the id of the entity"
        no_entity = "representations: must have the __typename of an entity, and its id"
        messages = [each["message"] for each in response["errors"] if each["extensions"]["code"] == "INVALID_INPUT"]
        assert messages == [no_uuid] * 2 + [no_entity] * 6

    async def test_unknown_entity_is_null_even_if_only_its_id_is_selected(
        self, services: Services, execute: Execute, path: str
    ) -> None:
        query = "query($keys: [_Any!]!) { _entities(representations: $keys) { ... on Account { id } } }"
        response = await execute(query, path, keys=[account(str(uuid4()))])
        assert response["data"] == {"_entities": [None]}
        assert [(each["path"], each["extensions"]["code"]) for each in response["errors"]] == [
            (["_entities", 0], "ACCOUNT_NOT_FOUND")
        ]

    async def test_other_fields_of_a_representation_are_ignored(
        self, services: Services, execute: Execute, path: str
    ) -> None:
        a = services.open()
        response = await execute(
            ENTITIES, path, representations=[{"info": 1, "id": a.upper(), "__typename": "Account"}]
        )
        assert response["data"]["_entities"][0]["id"] == a

    async def test_representation_may_be_a_literal(self, services: Services, execute: Execute, path: str) -> None:
        literal = f'{{__typename: "Account", id: "{services.open()}"}}'
        response = await execute(f"{{ _entities(representations: [{literal}]) {{ __typename }} }}", path)
        assert response == {"data": {"_entities": [{"__typename": "Account"}]}}

    async def test_more_keys_than_one_rpc_accepts_are_several_rpcs(
        self, services: Services, execute: Execute, path: str
    ) -> None:
        ids = [services.open() for _ in range(1_001)]
        query = "query($keys: [_Any!]!) { _entities(representations: $keys) { ... on Account { id } } }"
        response = await execute(query, path, keys=[account(id_) for id_ in ids])
        assert [each["id"] for each in response["data"]["_entities"]] == ids
        assert sorted((keys for _, keys in services.calls), key=len) == [ids[1_000:], ids[:1_000]]


class TestEntitiesOfSeveralServices:
    async def test_entities_of_several_services_are_one_rpc_each_in_the_requested_order(
        self, services: Services, execute: Execute
    ) -> None:
        a, b = services.open(), services.open()
        wanted = [top_up(b), account(a), transfer(b), top_up(a), account(b), top_up(b)]

        query = """
            query($keys: [_Any!]!) {
              _entities(representations: $keys) {
                __typename
                ... on Account { id holds: balance { amount } }
                ... on Transfer { id holds: amount { amount } }
                ... on TopUp { id holds: amount { amount } status updatedAt }
              }
            }
        """
        response = await execute(query, keys=wanted)

        resolved = response["data"]["_entities"]
        assert [{"__typename": each["__typename"], "id": each["id"]} for each in resolved] == wanted
        assert [each["holds"]["amount"] for each in resolved] == ["2.00", "1.00", "2.00", "1.00", "2.00", "2.00"]
        assert sorted(services.calls) == [
            ("BatchGetAccounts", [a, b]),
            ("BatchGetTopUps", [b, a]),
            ("BatchGetTransfers", [b]),
        ]

    async def test_unknown_top_up_is_null(self, services: Services, execute: Execute) -> None:
        known = services.open()
        for path in (MERGED, "/subgraphs/card/graphql"):
            representations = [top_up(str(uuid4())), top_up(known)]
            query = "query($keys: [_Any!]!) { _entities(representations: $keys) { ... on TopUp { id } } }"
            response = await execute(query, path, keys=representations)
            assert response["data"]["_entities"] == [None, {"id": known}]
            assert [error["extensions"]["code"] for error in response["errors"]] == ["TOP_UP_NOT_FOUND"]

    async def test_user_is_checked_by_identity_and_not_by_the_bank(self, services: Services, execute: Execute) -> None:
        known, unknown = services.open(), str(uuid4())
        representations = [{"__typename": "User", "id": id_} for id_ in (unknown, known)]
        query = "query($keys: [_Any!]!) { _entities(representations: $keys) { ... on User { id } } }"
        for path in (MERGED, "/subgraphs/identity/graphql"):
            response = await execute(query, path, keys=representations)
            assert response["data"]["_entities"] == [None, {"id": known}]
            assert [error["extensions"]["code"] for error in response["errors"]] == ["USER_NOT_FOUND"]
        response = await execute(query, "/subgraphs/bank/graphql", keys=representations)
        assert response["data"]["_entities"] == [{"id": unknown}, {"id": known}]
        assert services.calls == [("BatchGetUsers", [unknown, known])] * 2


class TestSubgraphs:
    async def test_subgraph_has_only_its_own_fields(self, execute: Execute) -> None:
        query = '{ account: __type(name: "Account") { ...Has } user: __type(name: "User") { ...Has } }'
        query += " fragment Has on __Type { fields { name } }"
        fields: dict[str, dict[str, set[str]]] = {}
        for name in SUBGRAPHS:
            response = await execute(query, f"/subgraphs/{name}/graphql")
            fields[name] = {
                type_: {field["name"] for field in has["fields"]} for type_, has in response["data"].items() if has
            }
        assert fields == {
            "bank": {"account": {"id", "balance", "status", "owner", "createdAt"}, "user": {"id", "accounts"}},
            "card": {"account": {"id", "topUps"}},
            "analytics": {"account": {"id", "operations", "statistics"}},
            "identity": {"user": {"id", "username", "role", "createdAt"}},
        }

    async def test_entity_without_resolve_reference_is_built_from_its_key(
        self, services: Services, execute: Execute
    ) -> None:
        account_id = str(uuid4())
        query = "query($keys: [_Any!]!) { _entities(representations: $keys) { ... on Account { id } } }"
        response = await execute(query, "/subgraphs/analytics/graphql", keys=[account(account_id), account("42")])
        assert response["data"]["_entities"] == [{"id": account_id}, None]
        assert [each["extensions"]["code"] for each in response["errors"]] == ["INVALID_INPUT"]
        assert services.calls == []

    async def test_subgraph_endpoint_has_the_same_checks_as_the_merged_graph(
        self, services: Services, keys: Keys
    ) -> None:
        async with gateway(keys, services, federation=True) as http:
            for path in ("/graphql", "/subgraphs/bank/graphql"):
                response = await http.post(
                    path, json={"query": ENTITIES, "variables": {"representations": [account("42")]}}
                )
                (error,) = response.json()["errors"]
                assert error["extensions"]["requestId"] == response.headers["x-request-id"]
                forged = await http.post(path, json={"query": "{ __typename }"}, headers={"Authorization": "Bearer x"})
                assert (forged.status_code, error_codes(forged)) == (401, ["UNAUTHENTICATED"])
                large = await http.post(path, json={"query": "{ __typename }" + " " * 200_000})
                assert (large.status_code, error_codes(large)) == (413, ["CONTENT_TOO_LARGE"])


class TestFederationSetting:
    async def test_federation_fields_and_endpoints_do_not_exist_while_the_setting_is_off(
        self, services: Services, keys: Keys
    ) -> None:
        async with gateway(keys, services, federation=False) as http:
            for query in ("{ _service { sdl } }", "{ _entities(representations: []) { __typename } }"):
                response = (await http.post("/graphql", json={"query": query})).json()
                assert [each["extensions"]["code"] for each in response["errors"]] == ["INVALID_GRAPHQL"]
            alone = await http.post("/subgraphs/bank/graphql", json={"query": "{ __typename }"})
            assert alone.status_code == 404
