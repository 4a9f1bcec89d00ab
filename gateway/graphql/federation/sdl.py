"""Write the SDL of the graph and of each subgraph: `python -m gateway.graphql.federation.sdl`."""

from pathlib import Path

from graphql import print_schema

from gateway.graphql.federation.composition import SUBGRAPHS, compose, subgraph


def main() -> None:
    """Write `gateway/schema.graphql` for clients and `subgraphs/*/graph/schema.graphql` for a federation router."""
    here = Path(__file__).parents[2]
    (here / "schema.graphql").write_text(print_schema(compose()._schema) + "\n")  # noqa: SLF001  the plain SDL of clients
    for name in SUBGRAPHS:
        (here.parent / "subgraphs" / name / "graph" / "schema.graphql").write_text(subgraph(name).as_str() + "\n")


if __name__ == "__main__":
    main()
