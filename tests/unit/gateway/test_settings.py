import re

from gateway.__main__ import Settings
from stack.process import ROOT

ROW = re.compile(r"^\| `(?P<name>[A-Z_]+)` \| (?P<default>[^|]*) \|", re.MULTILINE)
OF_THE_GRAPH = ("gateway_graphql_", "gateway_websocket_", "production", "gateway_federation", "gateway_rate")


class TestSettings:
    def test_of_the_graph_are_in_its_page_with_their_defaults(self) -> None:
        page = (ROOT / "docs" / "graph.md").read_text()
        told = {row["name"].lower(): row["default"].strip(" `").replace(",", "") for row in ROW.finditer(page)}
        ours = {
            name: str(field.default).lower()
            for name, field in Settings.model_fields.items()
            if name.startswith(OF_THE_GRAPH)
        }
        assert told == ours != {}
