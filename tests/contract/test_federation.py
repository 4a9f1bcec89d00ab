"""Apollo's composition accepts the exported subgraphs, and the merged graph as a subgraph."""

import re
from pathlib import Path
from typing import Any

import pytest
from graphql import build_schema, find_breaking_changes

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.federation.registry import SUBGRAPHS
from stack.process import ROOT
from tests.node import run_script

EXPORTED = {name: ROOT / "subgraphs" / name / "graph" / "schema.graphql" for name in SUBGRAPHS}


def compose(subgraphs: dict[str, Path]) -> dict[str, Any]:
    """Return the errors and hints of the composition, and the supergraph."""
    named = [f"{name}={file}" for name, file in subgraphs.items()]
    composition: dict[str, Any] = run_script("compose.mjs", *named, package="@apollo/composition")
    return composition


@pytest.mark.slow
class TestSubgraphs:
    def test_subgraphs_compose_without_errors_and_hints(self) -> None:
        composition = compose(EXPORTED)
        assert (composition["errors"], composition["hints"]) == ([], [])

    def test_composed_graph_is_the_merged_graph(self) -> None:
        routed, served = build_schema(compose(EXPORTED)["supergraph"]), build_merged_schema().core_schema
        assert find_breaking_changes(served, routed) == []
        more = [change.description for change in find_breaking_changes(routed, served)]
        # The composed graph also has directives and types of their arguments, which only the router uses.
        assert [each for each in more if not re.match(r"Directive @|(join|link)__", each)] == []

    def test_contradicting_subgraphs_are_rejected(self, tmp_path: Path) -> None:
        """If the composition never failed, the tests above would prove nothing."""
        other = tmp_path / "other.graphql"
        other.write_text(EXPORTED["bank"].read_text().replace("type Money @shareable", "type Money"))
        assert {error["code"] for error in compose(EXPORTED | {"bank": other})["errors"]} == {"INVALID_FIELD_SHARING"}


@pytest.mark.slow
class TestMergedGraph:
    def test_merged_graph_composes_as_a_subgraph(self, tmp_path: Path) -> None:
        file = tmp_path / "merged.graphql"
        file.write_text(build_merged_schema(federation=True).as_str())
        composition = compose({"wallet": file})
        assert (composition["errors"], composition["hints"]) == ([], [])
