"""Apollo's composition takes the subgraphs as they are exported, and the whole as a subgraph."""

import re
from pathlib import Path
from typing import Any

from graphql import build_schema, find_breaking_changes

from gateway.graphql.execution.schemas import build_merged_schema
from gateway.graphql.federation.registry import SUBGRAPHS
from stack.process import ROOT
from tests.node import judged

EXPORTED = {name: ROOT / "subgraphs" / name / "graph" / "schema.graphql" for name in SUBGRAPHS}


def composed(subgraphs: dict[str, Path]) -> dict[str, Any]:
    """What the composition has against the subgraphs, and the supergraph that it makes of them."""
    named = [f"{name}={file}" for name, file in subgraphs.items()]
    answer: dict[str, Any] = judged("compose.mjs", *named, by="@apollo/composition")
    return answer


class TestSubgraphs:
    def test_compose_without_an_error_or_a_hint(self) -> None:
        answer = composed(EXPORTED)
        assert (answer["errors"], answer["hints"]) == ([], [])

    def test_are_together_the_graph_that_the_gateway_serves(self) -> None:
        routed, served = build_schema(composed(EXPORTED)["supergraph"]), build_merged_schema().core_schema
        assert find_breaking_changes(served, routed) == []
        more = [change.description for change in find_breaking_changes(routed, served)]
        # Directives, and the types of their arguments, are between us and the router.
        assert [each for each in more if not re.match(r"Directive @|(join|link)__", each)] == []

    def test_that_contradict_each_other_are_refused(self, tmp_path: Path) -> None:
        """So that the judge is known to judge."""
        other = tmp_path / "other.graphql"
        other.write_text(EXPORTED["bank"].read_text().replace("type Money @shareable", "type Money"))
        assert {error["code"] for error in composed(EXPORTED | {"bank": other})["errors"]} == {"INVALID_FIELD_SHARING"}


class TestWhole:
    def test_is_itself_a_subgraph(self, tmp_path: Path) -> None:
        whole = tmp_path / "whole.graphql"
        whole.write_text(build_merged_schema(federation=True).as_str())
        answer = composed({"wallet": whole})
        assert (answer["errors"], answer["hints"]) == ([], [])
