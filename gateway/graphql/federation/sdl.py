"""Write the SDL of the graph and of each subgraph: `python -m gateway.graphql.federation.sdl`."""

from pathlib import Path

from graphql import print_schema

from gateway.graphql.execution.schemas import build_merged_schema, build_subgraph_schema
from gateway.graphql.federation.registry import SUBGRAPHS


def main() -> None:
    """Write `gateway/schema.graphql` for clients and `subgraphs/*/graph/schema.graphql` for a federation router."""
    gateway = Path(__file__).parents[2]
    (gateway / "schema.graphql").write_text(print_schema(build_merged_schema().core_schema) + "\n")
    for name in SUBGRAPHS:
        file = gateway.parent / "subgraphs" / name / "graph" / "schema.graphql"
        file.write_text(build_subgraph_schema(name).as_str() + "\n")


if __name__ == "__main__":
    main()
