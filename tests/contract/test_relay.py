"""Relay's compiler and graphql-eslint's Relay rules accept the graph."""

from typing import Any, Final

import pytest

from stack.process import ROOT
from tests.node import run_script

SCHEMA: Final = (ROOT / "gateway" / "schema.graphql").read_text()

pytestmark = pytest.mark.slow


def compile_client(schema: str) -> dict[str, Any]:
    result: dict[str, Any] = run_script("relay.mjs", package="relay-compiler", stdin=schema)
    return result


def lint(schema: str) -> list[str]:
    findings: list[str] = run_script("graphql-eslint.mjs", package="@graphql-eslint/eslint-plugin", stdin=schema)
    return findings


def test_refetchable_and_pagination_fragments_compile() -> None:
    result = compile_client(SCHEMA)
    assert result["status"] == 0, result["text"]
    assert {
        "clientAccountRefetch.graphql.js",
        "clientTopUpRefetch.graphql.js",
        "clientUserRefetch.graphql.js",
        "clientOperationsPage.graphql.js",
        "clientTopUpsPage.graphql.js",
        "clientAccountsPage.graphql.js",
    } <= set(result["generated"])


def test_fragments_of_a_type_without_a_node_do_not_compile() -> None:
    """If the compiler accepted any schema, the test above would prove nothing."""
    assert compile_client(SCHEMA.replace("type TopUp implements Node", "type TopUp"))["status"] != 0


def test_graph_has_no_findings_of_the_relay_rules() -> None:
    assert lint(SCHEMA) == []


def test_connection_without_page_info_is_a_finding() -> None:
    without = SCHEMA.replace("pageInfo: PageInfo!", "pages: PageInfo!", 1)
    assert any(each.startswith("@graphql-eslint/relay-connection-types") for each in lint(without))
