"""What a federation router is served: entities by key in few calls, each subgraph alone, nothing while it is off."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.app import build_app
from kit import status, wire
from kit.server import grpc_server
from protos.bank.v1 import bank_pb2, bank_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import SERVICE, BankClient
from tests.conftest import Keys
from wallet.errors import AccountNotFound, TransferNotFound
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
BOTH = pytest.mark.parametrize("path", ["/graphql", "/subgraphs/bank/graphql"])

Ask = Callable[..., Awaitable[dict[str, Any]]]


class Ledger(bank_pb2_grpc.BankServiceServicer):
    """Accounts and transfers that hold their place in `ids`. `asked` are the calls, each with its keys."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.asked: list[tuple[str, list[str]]] = []

    def open(self) -> str:
        self.ids.append(str(uuid4()))
        return self.ids[-1]

    async def BatchGetAccounts(self, request: Any, context: Any) -> bank_pb2.BatchGetAccountsResponse:  # noqa: N802
        self.asked.append(("BatchGetAccounts", list(request.ids)))
        response = bank_pb2.BatchGetAccountsResponse()
        for key in request.ids:
            if (money := self._money(key)) is not None:
                account = bank_pb2.Account(id=key, balance=money, status=bank_pb2.ACCOUNT_STATUS_OPEN)
                response.results.add(key=key, value=account)
            else:
                response.results.add(key=key, error=status.to_status(AccountNotFound(key)))
        return response

    async def BatchGetTransfers(self, request: Any, context: Any) -> bank_pb2.BatchGetTransfersResponse:  # noqa: N802
        self.asked.append(("BatchGetTransfers", list(request.ids)))
        response = bank_pb2.BatchGetTransfersResponse()
        for key in request.ids:
            if (money := self._money(key)) is not None:
                kind, sides = bank_pb2.TRANSFER_KIND_TRANSFER, {"sender_id": key, "recipient_id": key}
                response.results.add(key=key, value=bank_pb2.Transfer(id=key, kind=kind, amount=money, **sides))
            else:
                response.results.add(key=key, error=status.to_status(TransferNotFound(key)))
        return response

    def _money(self, key: str) -> Any:
        return wire.money_to(Money.parse(str(self.ids.index(key) + 1))) if key in self.ids else None


@pytest.fixture
async def ask(ledger: Ledger, keys: Keys) -> AsyncIterator[Ask]:
    """Asks the graph at a path, as alice."""
    async with gateway(keys, ledger, federation=True) as http:

        async def ask(query: str, path: str = "/graphql", **variables: Any) -> dict[str, Any]:
            answer = await http.post(path, json={"query": query, "variables": variables})
            assert answer.status_code == 200, answer.text
            result: dict[str, Any] = answer.json()
            return result

        yield ask


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()  # type: ignore[abstract]  # by intent: the rest is not called


@asynccontextmanager
async def gateway(keys: Keys, ledger: Ledger, *, federation: bool) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway over a ledger, on the real wire; nothing serves analytics."""
    listen, nobody = (f"{HOST}:{port}" for port in free_ports(2))
    services = {SERVICE: lambda server: bank_pb2_grpc.add_BankServiceServicer_to_server(ledger, server)}
    async with (
        grpc_server(listen, keys.verifier(), services),
        BankClient.connect(listen) as bank,
        AnalyticsClient.connect(nobody) as analytics,
    ):
        app = build_app(
            bank,
            analytics,
            keys.verifier(),
            cors_origins=[],
            body_limit_bytes=200_000,
            timeout_seconds=10,
            federation=federation,
        )
        headers = {"Authorization": f"Bearer {keys.user('alice')}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as http:
            yield http


def account(id_: str) -> dict[str, str]:
    return {"__typename": "Account", "id": id_}


def transfer(id_: str) -> dict[str, str]:
    return {"__typename": "Transfer", "id": id_}


class TestFields:
    async def test_accounts_of_one_query_are_one_call(self, ledger: Ledger, ask: Ask) -> None:
        a, b = ledger.open(), ledger.open()
        query = """
            query($a: ID!, $b: ID!) {
              x: account(id: $a) { balance { amount } createdAt } y: account(id: $b) { id } z: account(id: $a) { id }
            }
        """
        answer = await ask(query, a=a, b=b)
        assert [answer["data"][alias]["id"] for alias in "yz"] == [b, a]
        assert ledger.asked == [("BatchGetAccounts", [a, b])]

    async def test_transfers_of_one_query_are_one_call(self, ledger: Ledger, ask: Ask) -> None:
        t, u = ledger.open(), ledger.open()
        query = (
            "query($t: ID!, $u: ID!) { x: transfer(id: $t) { amount { amount } } y: transfer(id: $u) { createdAt } }"
        )
        answer = await ask(query, t=t, u=u)
        assert answer["data"]["x"] == {"amount": {"amount": "1.00"}}
        assert ledger.asked == [("BatchGetTransfers", [t, u])]


@BOTH
class TestEntities:
    async def test_are_one_call_for_each_type_in_the_order_asked(self, ledger: Ledger, ask: Ask, path: str) -> None:
        a, b, t, u = (ledger.open() for _ in range(4))
        wanted = [account(b), transfer(t), account(a), transfer(u), account(b), transfer(t)]

        answer = await ask(ENTITIES, path, representations=wanted)

        found = answer["data"]["_entities"]
        assert [{"__typename": each["__typename"], "id": each["id"]} for each in found] == wanted
        assert found[0]["balance"] == {"amount": "2.00"}
        assert found[1]["amount"] == {"amount": "3.00"}
        assert (found[4], found[5]) == (found[0], found[1])
        assert sorted(ledger.asked) == [("BatchGetAccounts", [b, a]), ("BatchGetTransfers", [t, u])]

    async def test_a_bad_key_is_null_with_its_error_and_the_others_answer(
        self, ledger: Ledger, ask: Ask, path: str
    ) -> None:
        a, missing = ledger.open(), str(uuid4())
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

        answer = await ask(ENTITIES, path, representations=wanted)

        first, *between, last = answer["data"]["_entities"]
        assert (first["__typename"], last["__typename"]) == ("Account", "Transfer")
        assert between == [None] * len(bad)
        errors = {each["path"][1]: each["extensions"]["code"] for each in answer["errors"]}
        assert errors == {place: code for place, (_, code) in enumerate(bad, start=1)}
        assert all(each["extensions"]["requestId"] for each in answer["errors"])

    async def test_one_that_is_not_there_is_null_whatever_is_asked_of_it(
        self, ledger: Ledger, ask: Ask, path: str
    ) -> None:
        query = "query($of: [_Any!]!) { _entities(representations: $of) { ... on Account { id } } }"
        answer = await ask(query, path, of=[account(str(uuid4()))])
        assert answer["data"] == {"_entities": [None]}
        assert [(each["path"], each["extensions"]["code"]) for each in answer["errors"]] == [
            (["_entities", 0], "ACCOUNT_NOT_FOUND")
        ]

    async def test_other_fields_of_a_representation_are_no_matter(self, ledger: Ledger, ask: Ask, path: str) -> None:
        a = ledger.open()
        answer = await ask(ENTITIES, path, representations=[{"info": 1, "id": a.upper(), "__typename": "Account"}])
        assert answer["data"]["_entities"][0]["id"] == a

    async def test_may_be_written_into_the_query(self, ledger: Ledger, ask: Ask, path: str) -> None:
        literal = f'{{__typename: "Account", id: "{ledger.open()}"}}'
        answer = await ask(f"{{ _entities(representations: [{literal}]) {{ __typename }} }}", path)
        assert answer == {"data": {"_entities": [{"__typename": "Account"}]}}

    async def test_more_than_a_call_takes_are_more_calls(self, ledger: Ledger, ask: Ask, path: str) -> None:
        ids = [ledger.open() for _ in range(1_001)]
        answer = await ask(ENTITIES, path, representations=[account(id_) for id_ in ids])
        assert [each["id"] for each in answer["data"]["_entities"]] == ids
        assert sorted((asked for _, asked in ledger.asked), key=len) == [ids[1_000:], ids[:1_000]]


class TestSubgraphs:
    async def test_have_their_own_part_and_no_other(self, ask: Ask) -> None:
        query = '{ __type(name: "Account") { fields { name } } }'
        fields = {}
        for name in ("bank", "analytics"):
            answer = await ask(query, f"/subgraphs/{name}/graphql")
            fields[name] = {field["name"] for field in answer["data"]["__type"]["fields"]}
        assert fields == {
            "bank": {"id", "balance", "createdAt"},
            "analytics": {"id", "operations", "statistics"},
        }

    async def test_that_only_add_to_an_entity_make_it_of_its_key(self, ledger: Ledger, ask: Ask) -> None:
        somebody = str(uuid4())
        query = "query($of: [_Any!]!) { _entities(representations: $of) { ... on Account { id } } }"
        answer = await ask(query, "/subgraphs/analytics/graphql", of=[account(somebody), account("42")])
        assert answer["data"]["_entities"] == [{"id": somebody}, None]
        assert [each["extensions"]["code"] for each in answer["errors"]] == ["INVALID_INPUT"]
        assert ledger.asked == []

    async def test_stand_behind_the_same_door_as_the_whole(self, ledger: Ledger, keys: Keys) -> None:
        async with gateway(keys, ledger, federation=True) as http:
            for path in ("/graphql", "/subgraphs/bank/graphql"):
                told = await http.post(
                    path, json={"query": ENTITIES, "variables": {"representations": [account("42")]}}
                )
                (error,) = told.json()["errors"]
                assert error["extensions"]["requestId"] == told.headers["x-request-id"]
                forged = await http.post(path, json={"query": "{ __typename }"}, headers={"Authorization": "Bearer x"})
                assert (forged.status_code, forged.json()["code"]) == (401, "UNAUTHENTICATED")
                large = await http.post(path, json={"query": "{ __typename }" + " " * 200_000})
                assert (large.status_code, large.json()["code"]) == (413, "CONTENT_TOO_LARGE")


class TestSetting:
    async def test_off_there_is_nothing_for_a_router(self, ledger: Ledger, keys: Keys) -> None:
        async with gateway(keys, ledger, federation=False) as http:
            for query in ("{ _service { sdl } }", "{ _entities(representations: []) { __typename } }"):
                answer = (await http.post("/graphql", json={"query": query})).json()
                assert [each["extensions"]["code"] for each in answer["errors"]] == ["INVALID_GRAPHQL"]
            alone = await http.post("/subgraphs/bank/graphql", json={"query": "{ __typename }"})
            assert alone.status_code == 404
