"""Number of RPCs for each entity and each connection of the graph: it does not grow with the number of parents."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from graphql import GraphQLObjectType, get_named_type

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.federation.merging import merge_entities
from gateway.graphql.federation.registry import SUBGRAPHS
from tests.conftest import Keys
from tests.integration.gateway.entity_services import Services, gateway

ACCOUNTS: Final = 20
LIST: Final = ("ListAccounts",)
ENTITIES: Final = {
    "Account": ("balance { amount } owner { id }", ("BatchGetAccounts",)),
    "Transfer": ("amount { amount }", ("BatchGetTransfers",)),
    "TopUp": ("status", ("BatchGetTopUps",)),
    "User": ("username", ("BatchGetUsers",)),
}
"""Loaded fields of each entity, and the RPCs for many of them."""

CONNECTIONS: Final = {
    "Query.accounts": ("id", LIST),
    "User.accounts": ("owner { accounts { edges { cursor } } }", (*LIST, *LIST)),
    "Account.operations": ("operations(first: 2) { edges { node { id } } }", (*LIST, "BatchGetOperations")),
    "Account.topUps": ("topUps(first: 2) { edges { node { status } } }", (*LIST, "BatchListTopUps")),
}
"""Selection on each of the caller's accounts, and the RPCs for all of them."""

SINGLE: Final = {"Account.transfers"}
"""Connections that are a call for each account: a reference belongs to one account."""

DEEP: Final = """
    topUps(first: 1) {
      edges {
        node { transfer { amount { amount } } account { balance { amount } operations(first: 1) { isComplete } } }
      }
    }
    owner { username }
"""
STATISTICS: Final = 'statistics(from: "2026-01-01T00:00:00Z", to: "2026-01-02T00:00:00Z", granularity: DAY)'


@pytest.fixture
def services() -> Services:
    services = Services()  # type: ignore[abstract]  # the other methods are not called
    for _ in range(ACCOUNTS):
        services.open()
    return services


@pytest.fixture
async def http(services: Services, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(keys, services, federation=True) as http:
        yield http


async def query(http: httpx.AsyncClient, text: str, **variables: Any) -> dict[str, Any]:
    response = await http.post("/graphql", json={"query": text, "variables": variables})
    body: dict[str, Any] = response.json()
    assert response.status_code == 200, body
    return body


def on_accounts(selection: str, first: int = ACCOUNTS) -> str:
    return f"{{ accounts(first: {first}) {{ edges {{ node {{ id {selection} }} }} }} }}"


def names(services: Services) -> list[str]:
    return [name for name, _ in services.calls]


def test_every_entity_and_connection_is_counted() -> None:
    types = build_merged_schema().core_schema.type_map
    connections = {
        f"{name}.{field}"
        for name, type_ in types.items()
        if isinstance(type_, GraphQLObjectType)
        for field, definition in type_.fields.items()
        if get_named_type(definition.type).name.endswith("Connection")
    }
    assert connections == {*CONNECTIONS, *SINGLE}
    assert {each.__name__ for each in merge_entities(list(SUBGRAPHS.values()))} == set(ENTITIES)


@pytest.mark.parametrize("connection", CONNECTIONS)
async def test_connection_of_many_accounts_is_one_rpc(
    services: Services, http: httpx.AsyncClient, connection: str
) -> None:
    selection, rpcs = CONNECTIONS[connection]
    response = await query(http, on_accounts(selection))
    assert "errors" not in response
    assert len(response["data"]["accounts"]["edges"]) == ACCOUNTS
    assert names(services) == list(rpcs)


@pytest.mark.parametrize("entity", ENTITIES)
async def test_many_entities_are_one_rpc(services: Services, http: httpx.AsyncClient, entity: str) -> None:
    selection, rpcs = ENTITIES[entity]
    representations = [{"__typename": entity, "id": id_} for id_ in (*services.ids, *services.ids)]
    text = f"query($keys: [_Any!]!) {{ _entities(representations: $keys) {{ ... on {entity} {{ id {selection} }} }} }}"
    response = await query(http, text, keys=representations)
    assert [each["id"] for each in response["data"]["_entities"]] == services.ids * 2
    assert services.calls == [(rpc, services.ids) for rpc in rpcs]


async def test_many_nodes_are_one_rpc_for_each_type(services: Services, http: httpx.AsyncClient) -> None:
    text = "query($ids: [ID!]!) { nodes(ids: $ids) { id __typename ... on Account { balance { amount } status } } }"
    response = await query(http, text, ids=services.ids * 2)
    amounts = {str(number + 1): id_ for number, id_ in enumerate(services.ids)}
    loaded = [(each["__typename"], each["id"], each["balance"]["amount"]) for each in response["data"]["nodes"]]
    assert loaded == [("Account", id_, f"{amount}.00") for amount, id_ in amounts.items()] * 2
    assert sorted(services.calls) == [
        (name, services.ids) for name in ("BatchGetAccounts", "BatchGetTopUps", "BatchGetTransfers", "BatchGetUsers")
    ]


async def test_balances_at_many_points_are_one_rpc_and_each_point_is_requested_once(
    services: Services, http: httpx.AsyncClient
) -> None:
    points = "a: balanceAt(version: 1) { version } b: balanceAt(version: 2) { version balance { amount } }"
    response = await query(http, on_accounts(f"{points} c: balanceAt(version: 1) {{ version }}"))
    assert "errors" not in response
    found = [each["node"] for each in response["data"]["accounts"]["edges"]]
    assert [[each[name]["version"] for name in "abc"] for each in found] == [[1, 2, 1]] * ACCOUNTS
    assert {each["id"]: each["b"]["balance"]["amount"] for each in found} == {
        id_: f"{number}.00" for number, id_ in enumerate(services.ids, start=1)
    }
    assert [(name, Counter(keys)) for name, keys in services.calls] == [
        ("ListAccounts", Counter([""])),
        ("BatchGetBalancesAt", Counter(services.ids * 2)),
    ]


@pytest.mark.parametrize("path", ["operations", "topUps"])
async def test_pages_of_many_entities_are_one_rpc_and_each_account_is_requested_once(
    services: Services, http: httpx.AsyncClient, path: str
) -> None:
    representations = [{"__typename": "Account", "id": id_} for id_ in (*services.ids, *services.ids)]
    text = f"""query($keys: [_Any!]!) {{
        _entities(representations: $keys) {{ ... on Account {{ {path}(first: 2) {{ pageInfo {{ endCursor }} }} }} }}
    }}"""
    response = await query(http, text, keys=representations)
    assert "errors" not in response
    pages = {"operations": "BatchGetOperations", "topUps": "BatchListTopUps"}
    assert services.calls == [("BatchGetAccounts", services.ids), (pages[path], services.ids)]


async def test_pages_with_other_arguments_are_in_the_same_rpc(services: Services, http: httpx.AsyncClient) -> None:
    response = await query(
        http,
        on_accounts("a: operations(first: 1) { isComplete } b: operations(last: 1, filter: {}) { isComplete }"),
    )
    assert "errors" not in response
    assert [(name, Counter(keys)) for name, keys in services.calls[1:]] == [
        ("BatchGetOperations", Counter(services.ids * 2))
    ]


async def test_rpcs_of_each_level_do_not_depend_on_the_number_of_accounts(
    services: Services, http: httpx.AsyncClient
) -> None:
    services.ids.append("alice")  # the owner of the accounts
    response = await query(http, on_accounts(DEEP, first=9))
    assert "errors" not in response
    expected = ["ListAccounts", "BatchListTopUps", "BatchGetUsers", "BatchGetTransfers", "BatchGetAccounts"]
    assert Counter(names(services)) == Counter([*expected, "BatchGetOperations"])


async def test_equal_statistics_are_one_rpc(services: Services, http: httpx.AsyncClient) -> None:
    (id_, *_) = services.ids
    text = f"query($id: ID!) {{ a: account(id: $id) {{ {STATISTICS} {{ cursor }} b: {STATISTICS} {{ cursor }} }} }}"
    assert "errors" not in await query(http, text, id=id_)
    assert names(services) == ["BatchGetAccounts", "GetStatistics"]


async def test_refused_page_is_the_error_of_its_account_only(services: Services, http: httpx.AsyncClient) -> None:
    known, unknown = services.ids[0], str(uuid4())
    text = """query($keys: [_Any!]!) {
        _entities(representations: $keys) { ... on Account { topUps { edges { cursor } } } }
    }"""
    keys = [{"__typename": "Account", "id": id_} for id_ in (known, unknown)]
    response = (await http.post("/subgraphs/card/graphql", json={"query": text, "variables": {"keys": keys}})).json()
    first, second = response["data"]["_entities"]
    assert len(first["topUps"]["edges"]) == 1
    assert second == {"topUps": None}
    assert [(each["path"], each["extensions"]["code"]) for each in response["errors"]] == [
        (["_entities", 1, "topUps"], "ACCOUNT_NOT_FOUND")
    ]
    assert services.calls == [("BatchListTopUps", [known, unknown])]


async def test_services_of_an_older_release_get_a_call_for_each_page(services: Services, keys: Keys) -> None:
    selection = f"{CONNECTIONS['Account.operations'][0]} {CONNECTIONS['Account.topUps'][0]}"
    async with gateway(keys, services, federation=True) as http:
        expected = await query(http, on_accounts(selection))
    services.calls.clear()
    async with gateway(keys, services, federation=True, is_older=True) as http:
        assert await query(http, on_accounts(selection)) == expected
    assert Counter(names(services)) == {"ListAccounts": 1, "GetOperations": ACCOUNTS, "ListTopUps": ACCOUNTS}
