"""Federation: entities by key in few RPCs, endpoints of the subgraphs, and the setting that turns federation off."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.graphql.federation.registry import SUBGRAPHS
from tests.conftest import Keys
from tests.integration.gateway.entity_services import Services, gateway

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

    @pytest.mark.parametrize("is_forward_only", [False, True])
    async def test_accounts_are_paged_backward(
        self, services: Services, execute: Execute, is_forward_only: bool
    ) -> None:
        services.is_forward_only = is_forward_only  # as a bank of an older release
        ids = sorted(services.open() for _ in range(5))
        services.ids.sort()
        query = """
            query($last: Int, $before: String) {
              accounts(last: $last, before: $before) {
                edges { node { id } }
                pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
              }
            }
        """
        ids_of_pages: list[str] = []
        before = None
        for more in (True, True, False):
            page = (await execute(query, last=2, before=before))["data"]["accounts"]
            info = page["pageInfo"]
            assert (info["hasPreviousPage"], info["hasNextPage"]) == (more, before is not None)
            ids_of_pages = [edge["node"]["id"] for edge in page["edges"]] + ids_of_pages
            before = info["startCursor"]
        assert ids_of_pages == ids
        nothing = (await execute(query, last=2, before=before))["data"]["accounts"]
        assert (nothing["edges"], nothing["pageInfo"]["hasNextPage"]) == ([], True)

    @pytest.mark.parametrize(
        "arguments", ["first: 0", "last: 0", "first: 1, last: 1", "first: 1001", 'after: "junk"', 'after: "djA"']
    )
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
            "bank": {
                "account": {
                    *("id", "balance", "balanceAt", "floor", "available", "status", "owner", "createdAt"),
                    *("transfers", "frozen", "changes"),
                },
                "user": {"id", "accounts"},
            },
            "card": {"account": {"id", "topUps"}},
            "analytics": {"account": {"id", "operations", "statistics"}},
            "identity": {"user": {"id", "username", "role", "createdAt"}},
            "nodes": {"account": {"id"}, "user": {"id"}},
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
