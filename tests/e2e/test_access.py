"""Access control: every REST route, GraphQL root field, gRPC method and admin route, called by every kind of caller."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from starlette.routing import Route

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.rest import rest_routes
from protos.wallet.bank.v1 import bank_pb2_grpc
from stack.system import System
from subgraphs.analytics.service.api import policy as analytics
from subgraphs.bank.service.api import policy as bank
from subgraphs.card.service.api import policy as card
from tests.e2e.access_environment import SERVICES, AccessEnvironment
from tests.e2e.access_table import COLUMNS, EXPECTED
from tests.forwarded import assert_items_are_decided_for_their_own_callers, transfer_request

ADMIN_POLICIES: Final = {"bank": bank.ADMIN, "card": card.ADMIN, "analytics": analytics.ADMIN}
"""Policies of the admin routes, by service."""


@pytest.fixture(scope="module")
async def environment(system: System) -> AsyncIterator[AccessEnvironment]:
    async with AccessEnvironment.create(system) as environment:
        yield environment


def _cells(call: str, forged: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each caller with the expected result of the call. Each kind of forged token is a separate caller."""
    for column, expected in zip(COLUMNS, EXPECTED[call].split(), strict=True):
        for name in forged if column == "forged" else (column,):
            yield name, expected


HEAD_CALLS: Final = [call.replace("GET ", "HEAD ") for call in EXPECTED if "GET " in call]
"""Every GET route as a HEAD request, which has the same results as the GET request."""


@pytest.mark.parametrize("call", [*EXPECTED, *HEAD_CALLS])
async def test_call_has_the_expected_result_for_every_caller(environment: AccessEnvironment, call: str) -> None:
    cells = dict(_cells(call.replace("HEAD ", "GET "), environment.forged))
    tokens = environment.tokens | environment.forged
    limit = asyncio.Semaphore(4)  # password hashes are slow

    async def call_as(caller: str) -> str:
        async with limit:
            return await environment.call(call, tokens[caller])

    responses = await asyncio.gather(*map(call_as, cells))
    assert dict(zip(cells, responses, strict=True)) == cells


async def test_forwarded_transfers_are_decided_for_their_own_callers(environment: AccessEnvironment) -> None:
    """Make the calls of TransferMoney as items of one call."""
    expected = dict(_cells("BankService.TransferMoney", environment.forged))
    tokens = {caller: (environment.tokens | environment.forged)[caller] or "" for caller in expected}
    await assert_items_are_decided_for_their_own_callers(
        bank_pb2_grpc.BankServiceStub(environment.channels["BankService"]),
        (("authorization", f"Bearer {tokens['gateway']}"),),
        lambda key: transfer_request(environment.account, environment.payee, key),
        tokens,
        expected,
    )


@pytest.mark.parametrize("call", EXPECTED)
async def test_authorization_scheme_is_case_insensitive_and_required(environment: AccessEnvironment, call: str) -> None:
    expected = dict(zip(COLUMNS, EXPECTED[call].split(), strict=True))
    token = environment.tokens["owner"]
    assert await environment.call(call, token, "bearer ") == expected["owner"]
    assert await environment.call(call, token, "") == expected["forged"]


def test_access_table_has_every_call(environment: AccessEnvironment) -> None:
    clients: Any = (None,) * 6
    served = [each for each in rest_routes(*clients) if isinstance(each, Route)]
    routes = {f"{method} {each.path}" for each in served for method in (each.methods or set()) - {"HEAD"}}
    schema = build_merged_schema(federation=True).core_schema
    roots = [root for root in (schema.query_type, schema.mutation_type, schema.subscription_type) if root]
    fields = {f"{root}.{name}" for root in roots for name in root.fields}
    rpcs = {
        f"{name}.{method.name}"
        for name, (module, _) in SERVICES.items()
        for method in module.DESCRIPTOR.services_by_name[name].methods
    }
    admin = {f"{name} {route}" for name, policy in ADMIN_POLICIES.items() for route in policy}
    cells = [cell for call in EXPECTED for cell in _cells(call, environment.forged)]
    assert EXPECTED.keys() == routes | {"GET /.well-known/jwks.json"} | fields | rpcs | admin
    print(f"{len(EXPECTED)} calls, {len(cells)} cells")  # noqa: T201  size of the table, shown by -s
    assert len(cells) == len(EXPECTED) * (len(COLUMNS) - 1 + len(environment.forged))


def test_counterparty_data_other_than_the_id_is_not_disclosed(environment: AccessEnvironment) -> None:
    """Check all responses that the owner received in the tests above."""
    mentioned = {call for call, text in environment.owner_responses.items() if environment.payee in text}
    assert {
        "POST /accounts/{accountId}/transfers",
        "Subscription.operationAdded",
        "BankService.GetTransfer",
    } <= mentioned
    for call, text in environment.owner_responses.items():
        assert not [secret for secret in environment.secrets if secret in text], call
        assert not list(_disclosures(json.loads(text), environment.payee)), call


_PRIVATE_FIELDS: Final = {"balance", "balanceAfter", "version", "accountVersion", "owner", "ownerId"}


def _disclosures(value: Any, account: str) -> Iterator[dict[str, Any]]:
    """Yield each object that has the account's id and a private field of the account."""
    if isinstance(value, dict):
        ids = {value.get(name) for name in ("id", "accountId", "key")}
        if account in ids and _PRIVATE_FIELDS & value.keys():
            yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _disclosures(each, account)
