"""Access rules of the gateway match the contract, the routes, the graph and the services' policies."""

from typing import Any

import pytest
import yaml
from google.protobuf.descriptor import ServiceDescriptor
from starlette.routing import Route

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.policy import GRAPH_RULES, PUBLIC_PATHS, PUBLIC_PREFIXES, REST_RULES
from gateway.rest import rest_routes
from kit.auth.access import ADMIN_ACCESS, OPERATOR_ACCESS, READ_ACCESS, WRITE_ACCESS, AccessPolicy
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
    def test_every_operation_of_the_contract_has_one_rule(self) -> None:
        assert REST_RULES.keys() == OPERATIONS.keys()

    def test_public_rules_are_the_operations_without_security(self) -> None:
        assert {name for name, rule in REST_RULES.items() if rule.is_public} == {
            name for name, operation in OPERATIONS.items() if operation.get("security") == []
        }

    def test_every_served_route_is_in_the_contract(self) -> None:
        clients: Any = (None,) * 6
        routes = rest_routes(*clients)
        served = {
            f"{method} {each.path}"
            for each in routes
            if isinstance(each, Route)
            for method in (each.methods or set()) - {"HEAD"}
        }
        assert served <= OPERATIONS.keys()

    def test_public_paths_are_public_for_every_method(self) -> None:
        protected = {name.partition(" ")[2] for name, rule in REST_RULES.items() if not rule.is_public}
        assert not PUBLIC_PATHS & protected
        assert not any("{" in path for path in PUBLIC_PATHS)
        assert not any(path.startswith(PUBLIC_PREFIXES) for path in protected)


class TestGraph:
    def test_every_root_field_has_one_rule(self) -> None:
        schema = build_merged_schema(federation=True).core_schema
        roots = (schema.query_type, schema.mutation_type, schema.subscription_type)
        assert GRAPH_RULES.keys() == {f"{root}.{name}" for root in roots if root for name in root.fields}

    def test_mutations_need_write_access_and_subscriptions_read_access(self) -> None:
        assert {rule for name, rule in GRAPH_RULES.items() if name.startswith("Mutation.")} == {
            WRITE_ACCESS,
            OPERATOR_ACCESS,
            ADMIN_ACCESS,
        }
        assert {rule for name, rule in GRAPH_RULES.items() if name.startswith("Subscription.")} == {READ_ACCESS}


def test_no_rule_admits_a_service() -> None:
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
    def test_every_rpc_has_one_rule(self, service: ServiceDescriptor, policy: AccessPolicy) -> None:
        assert policy.keys() == {method.name for method in service.methods}

    def test_only_login_rpcs_are_public(self, service: ServiceDescriptor, policy: AccessPolicy) -> None:
        public = {name for name, rule in policy.items() if rule.is_public}
        login_rpcs = {"Register", "Authenticate", "Refresh", "Revoke"}
        assert public == (login_rpcs if service.name == "IdentityService" else set())
