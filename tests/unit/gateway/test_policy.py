"""The gateway's table, held against what there is: the contract, the app, the graph and the services' own policies."""

from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from google.protobuf.descriptor import ServiceDescriptor

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.policy import GRAPH_RULES, PUBLIC_PATHS, REST_RULES
from gateway.rest import rest_routes
from kit.auth.access import READ_ACCESS, WRITE_ACCESS, AccessPolicy
from protos.wallet.analytics.v1 import analytics_pb2
from protos.wallet.bank.v1 import bank_pb2
from protos.wallet.card.v1 import card_pb2
from protos.wallet.identity.v1 import identity_pb2
from stack.process import ROOT
from subgraphs.analytics.service.api.policy import POLICY as ANALYTICS
from subgraphs.bank.service.api.policy import POLICY as BANK
from subgraphs.card.service.api.policy import POLICY as CARD
from subgraphs.identity.service.api.policy import POLICY as IDENTITY

CONTRACT = yaml.safe_load((ROOT / "openapi" / "openapi.yaml").read_text())
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, item in CONTRACT["paths"].items()
    for method, operation in item.items()
    if method in {"get", "post", "put", "patch", "delete"}
}


class TestRest:
    def test_every_route_of_the_contract_has_a_row_and_every_row_a_route(self) -> None:
        assert REST_RULES.keys() == OPERATIONS.keys()

    def test_what_needs_no_token_there_needs_none_here(self) -> None:
        assert {name for name, rule in REST_RULES.items() if rule.is_public} == {
            name for name, operation in OPERATIONS.items() if operation.get("security") == []
        }

    def test_every_route_that_is_served_is_of_the_contract(self) -> None:
        clients: Any = (None,) * 4
        routes = rest_routes(*clients)
        served = {
            f"{method} {each.path}" for each in routes if isinstance(each, APIRoute) for method in each.methods or ()
        }
        assert served <= OPERATIONS.keys()

    def test_an_open_path_is_open_whatever_is_asked_of_it(self) -> None:
        closed = {name.partition(" ")[2] for name, rule in REST_RULES.items() if not rule.is_public}
        assert not PUBLIC_PATHS & closed
        assert not any("{" in path for path in PUBLIC_PATHS)


class TestGraph:
    def test_every_root_field_has_a_row_and_every_row_a_root_field(self) -> None:
        schema = build_merged_schema(federation=True).core_schema
        roots = (schema.query_type, schema.mutation_type, schema.subscription_type)
        assert GRAPH_RULES.keys() == {f"{root}.{name}" for root in roots if root for name in root.fields}

    def test_no_mutation_is_for_those_who_only_read(self) -> None:
        assert {rule for name, rule in GRAPH_RULES.items() if name.startswith("Mutation.")} == {WRITE_ACCESS}
        assert {rule for name, rule in GRAPH_RULES.items() if name.startswith("Subscription.")} == {READ_ACCESS}


def test_no_service_has_business_at_the_front_door() -> None:
    assert not any(rule.services for rule in (*REST_RULES.values(), *GRAPH_RULES.values()))


@pytest.mark.parametrize(
    ("service", "policy"),
    [
        (bank_pb2.DESCRIPTOR.services_by_name["BankService"], BANK),
        (card_pb2.DESCRIPTOR.services_by_name["CardService"], CARD),
        (analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"], ANALYTICS),
        (identity_pb2.DESCRIPTOR.services_by_name["IdentityService"], IDENTITY),
    ],
    ids=["bank", "card", "analytics", "identity"],
)
class TestServices:
    def test_every_call_has_a_rule_and_every_rule_a_call(
        self, service: ServiceDescriptor, policy: AccessPolicy
    ) -> None:
        assert policy.keys() == {method.name for method in service.methods}

    def test_nobody_is_let_in_without_a_token_but_to_get_one(
        self, service: ServiceDescriptor, policy: AccessPolicy
    ) -> None:
        is_open = {name for name, rule in policy.items() if rule.is_public}
        signing_in = {"Register", "Authenticate", "Refresh", "Revoke"}
        assert is_open == (signing_in if service.name == "IdentityService" else set())
