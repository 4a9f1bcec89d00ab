"""`python -m gateway.sdl`: writes the graph's SDL, merged and of each subgraph, where `make check` looks for drift."""

from pathlib import Path

from graphql import print_schema

from gateway.composition import SUBGRAPHS, compose, subgraph


def main() -> None:
    """Writes `gateway/schema.graphql` (what clients see) and `subgraphs/*/schema.graphql` (what a router composes)."""
    here = Path(__file__).parent
    (here / "schema.graphql").write_text(print_schema(compose()._schema) + "\n")  # noqa: SLF001  the plain SDL of clients
    for name in SUBGRAPHS:
        (here.parent / "subgraphs" / name / "schema.graphql").write_text(subgraph(name).as_str() + "\n")


if __name__ == "__main__":
    main()
