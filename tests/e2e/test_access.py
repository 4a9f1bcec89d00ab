"""Who may do what, at the front door and behind it: every REST route, root field, gRPC method and admin route, asked by
everybody. What is expected stands here, once, and nowhere else: it is not read from the policies that it judges.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from fastapi.routing import APIRoute

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.rest import rest_routes
from stack.system import System
from subgraphs.analytics.service.api import policy as analytics
from subgraphs.bank.service.api import policy as bank
from subgraphs.card.service.api import policy as card
from tests.e2e.everybody import SERVICES, Scene

COLUMNS: Final = ("anonymous", "owner", "another", "operator", "admin", "nobody", "card", "analytics", "forged")
"""Nobody is a user without roles; another is a customer, too; a forged token is each of those in `forged`."""

READ: Final = "401 ok 404 ok ok 403 403 403 401"
MOVE: Final = "401 ok 404 403 ok 403 403 403 401"
ADMIN: Final = "401 403 403 403 ok 403 403 403 401"
OPEN: Final = "ok ok ok ok ok ok ok ok ok"
OWN: Final = "401 ok ok ok ok 403 403 403 401"

EXPECTED: Final = {
    "GET /.well-known/jwks.json": OPEN,
    "POST /auth/register": OPEN,
    "POST /auth/login": OPEN,
    "POST /auth/refresh": OPEN,
    "POST /auth/logout": OPEN,
    "GET /me": OWN,
    "GET /accounts": OWN,
    "POST /accounts": "401 ok ok 403 ok 403 403 403 401",
    "GET /accounts/{accountId}": READ,
    "POST /accounts/{accountId}/transfers": MOVE,
    "GET /accounts/{accountId}/transfers/{transferId}": READ,
    "POST /accounts/{accountId}/topup": MOVE,
    "GET /accounts/{accountId}/topups/{topUpId}": READ,
    # A feed of an account that is not the caller's is not there, either.
    "GET /accounts/{accountId}/operations": READ,
    "Query.me": OWN,
    "Query.account": READ,
    "Query.accounts": OWN,
    "Query.transfer": READ,
    "Query.topUp": READ,
    "Query._entities": READ,
    "Query._service": "ok ok ok ok ok 403 403 403 401",
    "Mutation.transferMoney": MOVE,
    "Mutation.topUpAccount": MOVE,
    "Mutation.openAccount": "401 ok ok 403 ok 403 403 403 401",
    "Subscription.balanceChanged": READ,
    "Subscription.operationAdded": READ,
    "Subscription.topUpUpdated": READ,
    "BankService.TransferMoney": MOVE,
    "BankService.BatchTransferMoney": MOVE,
    "BankService.DepositMoney": "401 403 403 403 403 403 ok 403 401",
    "BankService.GetBalance": READ,
    "BankService.GetTransfer": "401 ok 404 ok ok 403 ok 403 401",
    "BankService.BatchGetAccounts": "401 ok 404 ok ok 403 ok ok 401",
    "BankService.BatchGetTransfers": READ,
    "BankService.OpenAccount": "401 ok 403 403 ok 403 403 403 401",
    "BankService.CloseAccount": MOVE,
    "BankService.ListAccounts": "401 ok 403 ok ok 403 403 403 401",
    "BankService.ListAccountVersions": "401 403 403 403 403 403 403 ok 401",
    "BankService.ListEvents": "401 403 403 403 403 403 ok ok 401",
    "CardService.ProcessCardTopUp": MOVE,
    "CardService.GetTopUp": READ,
    "CardService.BatchGetTopUps": READ,
    "CardService.ListTopUps": READ,
    "CardService.WatchTopUp": READ,
    "bank GET /integrity": ADMIN,
    "card GET /integrity": ADMIN,
    "card GET /review": "401 403 403 ok ok 403 403 403 401",
    "card POST /review/{top_up_id}/retry": "401 403 403 403 404 403 403 403 401",  # there is nothing to look at
    "analytics GET /integrity": ADMIN,
    "analytics POST /replay": ADMIN,
    "AnalyticsService.GetOperations": READ,
    "AnalyticsService.GetStatistics": READ,
    "AnalyticsService.WatchOperations": READ,
    "IdentityService.Register": OPEN,
    "IdentityService.Authenticate": OPEN,
    "IdentityService.Refresh": OPEN,
    "IdentityService.Revoke": OPEN,
    "IdentityService.GetUser": READ,
    "IdentityService.BatchGetUsers": READ,
}
"""What each caller is answered, in the order of the columns: `ok`, or what HTTP calls it."""

ADMIN_POLICIES: Final = {"bank": bank.ADMIN, "card": card.ADMIN, "analytics": analytics.ADMIN}
"""For the routes that there are."""


@pytest.fixture(scope="module")
async def scene(system: System) -> AsyncIterator[Scene]:
    async with Scene.set(system) as scene:
        yield scene


def _cells(call: str, forged: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each caller of a call, forged tokens by their kind, and what they are to be answered."""
    for column, expected in zip(COLUMNS, EXPECTED[call].split(), strict=True):
        for name in forged if column == "forged" else (column,):
            yield name, expected


@pytest.mark.parametrize("call", EXPECTED)
async def test_everybody_is_answered_as_they_should_be(scene: Scene, call: str) -> None:
    cells = dict(_cells(call, scene.forged))
    tokens = scene.tokens | scene.forged
    some = asyncio.Semaphore(4)  # at once: signing in takes its time

    async def ask(caller: str) -> str:
        async with some:
            return await scene.ask(call, tokens[caller])

    answers = await asyncio.gather(*map(ask, cells))
    assert dict(zip(cells, answers, strict=True)) == cells


def test_there_is_a_row_for_everything_that_can_be_asked(scene: Scene) -> None:
    clients: Any = (None,) * 4
    served = [each for each in rest_routes(*clients) if isinstance(each, APIRoute)]
    routes = {f"{method} {each.path}" for each in served for method in each.methods or ()}
    schema = build_merged_schema(federation=True).core_schema
    roots = [root for root in (schema.query_type, schema.mutation_type, schema.subscription_type) if root]
    fields = {f"{root}.{name}" for root in roots for name in root.fields}
    rpcs = {
        f"{name}.{method.name}"
        for name, (module, _) in SERVICES.items()
        for method in module.DESCRIPTOR.services_by_name[name].methods
    }
    admin = {f"{name} {route}" for name, policy in ADMIN_POLICIES.items() for route in policy}
    cells = [cell for call in EXPECTED for cell in _cells(call, scene.forged)]
    assert EXPECTED.keys() == routes | {"GET /.well-known/jwks.json"} | fields | rpcs | admin
    print(f"{len(EXPECTED)} calls, {len(cells)} cells")  # noqa: T201  for whoever asks how many
    assert len(cells) == len(EXPECTED) * (len(COLUMNS) - 1 + len(scene.forged))


def test_no_customer_learns_of_the_other_side_more_than_its_id(scene: Scene) -> None:
    """Of what the owner has just been told, by every way there is."""
    told = {call for call, text in scene.seen.items() if scene.payee in text}
    assert {"POST /accounts/{accountId}/transfers", "Subscription.operationAdded", "BankService.GetTransfer"} <= told
    for call, text in scene.seen.items():
        assert not [secret for secret in scene.secrets if secret in text], call
        assert not list(_said_of(json.loads(text), scene.payee)), call


_SECRET: Final = {"balance", "balanceAfter", "version", "accountVersion", "owner", "ownerId"}


def _said_of(value: Any, account: str) -> Iterator[dict[str, Any]]:
    """Each object that is about the account, and says more than its id."""
    if isinstance(value, dict):
        about = {value.get(name) for name in ("id", "accountId", "key")}
        if account in about and _SECRET & value.keys():
            yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _said_of(each, account)
