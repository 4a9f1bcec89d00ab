"""Three composers accept the exported subgraphs, and the merged graph as a subgraph: Apollo's, Hive's and Cosmo's."""

import json
import re
from typing import Any, Final

import pytest
from graphql import build_schema, find_breaking_changes

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.federation.registry import SUBGRAPHS
from stack.process import ROOT
from tests.node import run_script

SUBGRAPH_SDL: Final = {name: (ROOT / "subgraphs" / name / "graph" / "schema.graphql").read_text() for name in SUBGRAPHS}
COMPOSERS: Final = ("apollo", "hive", "cosmo")

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("composer", COMPOSERS)]


@pytest.fixture(scope="module")
def compositions() -> dict[str, dict[str, Any]]:
    """Results of all composers for the subgraphs, the merged graph, and subgraphs that contradict each other."""
    contradicting = SUBGRAPH_SDL | {"bank": SUBGRAPH_SDL["bank"].replace("type Money @shareable", "type Money")}
    graphs = {
        "subgraphs": SUBGRAPH_SDL,
        "merged": {"wallet": build_merged_schema(federation=True).as_str()},
        "contradicting": contradicting,
    }
    results = run_script("compose.mjs", package="@wundergraph/composition", stdin=json.dumps([*graphs.values()]))
    return dict(zip(graphs, results, strict=True))


@pytest.mark.parametrize("graph", ["subgraphs", "merged"])
def test_graph_composes_without_errors_and_hints(
    compositions: dict[str, dict[str, Any]], graph: str, composer: str
) -> None:
    composition = compositions[graph][composer]
    assert (composition["errors"], composition["hints"]) == ([], [])


@pytest.mark.parametrize("graph", ["subgraphs", "merged"])
def test_composed_graph_is_the_merged_graph(compositions: dict[str, dict[str, Any]], graph: str, composer: str) -> None:
    composed, served = build_schema(compositions[graph][composer]["schema"]), build_merged_schema().core_schema
    assert find_breaking_changes(served, composed) == []
    more = [change.description for change in find_breaking_changes(composed, served)]
    # The composed graph also has directives and types of their arguments, which only the router uses.
    assert [each for each in more if not re.match(r"Directive @|(join|link)__|@?core__", each)] == []


def test_contradicting_subgraphs_are_rejected(compositions: dict[str, dict[str, Any]], composer: str) -> None:
    """If the composition never failed, the tests above would prove nothing."""
    errors = compositions["contradicting"][composer]["errors"]
    assert errors
    assert all(error == "INVALID_FIELD_SHARING" or "@shareable" in error for error in errors)
