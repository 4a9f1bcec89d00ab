"""`node` and `nodes`: objects of all types by their ids."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Keys
from tests.integration.gateway.entity_services import Services, gateway
from wallet.errors import Unavailable

FIELDS = """
    __typename id
    ... on Account { balance { amount } operations(first: 1) { edges { node { id } } } }
    ... on Transfer { amount { amount } }
    ... on TopUp { status account { id } }
    ... on User { username }
"""
NODE = f"query($id: ID!) {{ node(id: $id) {{ {FIELDS} }} }}"
NODES = f"query($ids: [ID!]!) {{ nodes(ids: $ids) {{ {FIELDS} }} }}"
TYPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Account": ("BatchGetAccounts", {"balance": {"amount": "1.00"}}),
    "Transfer": ("BatchGetTransfers", {"amount": {"amount": "1.00"}}),
    "TopUp": ("BatchGetTopUps", {"status": "CAPTURED"}),
    "User": ("BatchGetUsers", {}),
}
"""The method that knows the objects of each type, and some fields of the object."""


class OneType(Services):
    """Services in which ids belong to objects of one type only.

    Attributes:
        known_to: the method that knows the ids.
        outage: the method that fails.
    """

    known_to: str
    outage = ""


@pytest.fixture
def services() -> OneType:
    services = OneType()  # type: ignore[abstract]  # the other methods are not called
    for method, _ in TYPES.values():
        respond = getattr(services, method)

        async def respond_if_known(request: Any, context: Any, method: str = method, respond: Any = respond) -> Any:
            if method == services.outage:
                raise Unavailable("a service")
            known, services.ids = services.ids, services.ids if method == services.known_to else []
            try:
                return await respond(request, context)
            finally:
                services.ids = known

        setattr(services, method, respond_if_known)
    return services


@pytest.fixture
async def http(services: OneType, keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway(keys, services, federation=False) as http:
        yield http


async def query(http: httpx.AsyncClient, text: str, **variables: Any) -> dict[str, Any]:
    body: dict[str, Any] = (await http.post("/graphql", json={"query": text, "variables": variables})).json()
    return body


@pytest.mark.parametrize("name", TYPES)
async def test_node_has_the_type_and_the_fields_of_its_object(
    services: OneType, http: httpx.AsyncClient, name: str
) -> None:
    services.known_to, fields = TYPES[name]
    id_ = services.open()
    response = await query(http, NODE, id=id_)
    assert "errors" not in response
    node = response["data"]["node"]
    assert node.items() >= ({"__typename": name, "id": id_} | fields).items()
    assert sum(method == services.known_to for method, _ in services.calls) == 1  # the object is not loaded again


async def test_unknown_id_is_null(services: OneType, http: httpx.AsyncClient) -> None:
    services.known_to = "BatchGetAccounts"
    known, unknown = services.open(), str(uuid4())
    response = await query(http, "query($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=[unknown, known, unknown])
    assert response == {"data": {"nodes": [None, {"id": known}, None]}}


async def test_caller_of_another_issuer_is_a_node(services: OneType, http: httpx.AsyncClient) -> None:
    response = await query(http, '{ node(id: "alice") { id ... on User { accounts { edges { cursor } } } } }')
    assert response == {"data": {"node": {"id": "alice", "accounts": {"edges": []}}}}


async def test_node_of_an_unavailable_service_is_an_error_and_others_are_found(
    services: OneType, http: httpx.AsyncClient
) -> None:
    services.known_to, services.outage = "BatchGetTransfers", "BatchGetTopUps"
    known, unknown = services.open(), str(uuid4())
    response = await query(http, "query($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=[known, unknown])
    assert response["data"] == {"nodes": [{"id": known}, None]}
    assert [(each["path"], each["extensions"]["code"]) for each in response["errors"]] == [
        (["nodes", 1], "UNAVAILABLE")
    ]


async def test_too_many_ids_are_refused(services: OneType, http: httpx.AsyncClient) -> None:
    response = await query(http, "query($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=[str(uuid4())] * 101)
    assert [each["message"] for each in response["errors"]] == ["ids: must have at most 100 entries"]
    assert services.calls == []
