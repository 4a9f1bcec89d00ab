"""Changes of the graph that are accepted or rejected."""

import shutil
from pathlib import Path

import pytest
from graphql import BreakingChangeType, DangerousChangeType, build_schema, find_breaking_changes, find_dangerous_changes

from gateway.graphql.federation.breaking_changes import BreakingChangeError, update_released_schema
from stack.process import ROOT

GRAPH = """
directive @note(text: String, more: Int) repeatable on FIELD_DEFINITION | OBJECT

interface Node {
  id: ID!
}

type Account implements Node {
  id: ID!
  balance: String
  operations(first: Int! = 50, filter: Filter): [Operation]
}

type Operation {
  kind: Kind
  target: Target
}

union Target = Account | Operation

enum Kind {
  IN
  OUT
}

input Filter {
  kind: Kind
  currency: String! = "RUB"
}

type Query {
  account(id: ID!): Account
}
"""

BREAKING = {
    BreakingChangeType.TYPE_REMOVED: ("target: Target\n}\n\nunion Target = Account | Operation", "}"),
    BreakingChangeType.TYPE_CHANGED_KIND: ("enum Kind {\n  IN\n  OUT\n}", "scalar Kind"),
    BreakingChangeType.TYPE_REMOVED_FROM_UNION: ("Account | Operation", "Account"),
    BreakingChangeType.VALUE_REMOVED_FROM_ENUM: ("  OUT\n", ""),
    BreakingChangeType.REQUIRED_INPUT_FIELD_ADDED: ("input Filter {", "input Filter {\n  owner: ID!"),
    BreakingChangeType.IMPLEMENTED_INTERFACE_REMOVED: (" implements Node", ""),
    BreakingChangeType.FIELD_REMOVED: ("  balance: String\n", ""),
    BreakingChangeType.FIELD_CHANGED_KIND: ("balance: String", "balance: Int"),
    BreakingChangeType.REQUIRED_ARG_ADDED: ("account(id: ID!)", "account(id: ID!, owner: ID!)"),
    BreakingChangeType.ARG_REMOVED: (", filter: Filter)", ")"),
    BreakingChangeType.ARG_CHANGED_KIND: ("filter: Filter)", "filter: Filter!)"),
    BreakingChangeType.DIRECTIVE_REMOVED: ("@note", "@remark"),
    BreakingChangeType.DIRECTIVE_ARG_REMOVED: (", more: Int", ""),
    BreakingChangeType.REQUIRED_DIRECTIVE_ARG_ADDED: (", more: Int", ", more: Int, even: Int!"),
    BreakingChangeType.DIRECTIVE_REPEATABLE_REMOVED: (" repeatable", ""),
    BreakingChangeType.DIRECTIVE_LOCATION_REMOVED: (" | OBJECT", ""),
}

DANGEROUS = {
    DangerousChangeType.VALUE_ADDED_TO_ENUM: ("  OUT\n", "  OUT\n  BOTH\n"),
    DangerousChangeType.TYPE_ADDED_TO_UNION: ("Account | Operation", "Account | Operation | Query"),
    DangerousChangeType.OPTIONAL_INPUT_FIELD_ADDED: ("input Filter {", "input Filter {\n  owner: ID"),
    DangerousChangeType.OPTIONAL_ARG_ADDED: ("account(id: ID!)", "account(id: ID!, owner: ID)"),
    DangerousChangeType.IMPLEMENTED_INTERFACE_ADDED: (
        "type Operation {",
        "type Operation implements Node {\n  id: ID!",
    ),
    DangerousChangeType.ARG_DEFAULT_VALUE_CHANGE: ("= 50", "= 20"),
    DangerousChangeType.INPUT_FIELD_DEFAULT_VALUE_CHANGE: ('"RUB"', '"USD"'),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a released graph."""
    (tmp_path / "schema.graphql").write_text(GRAPH)
    update_released_schema(tmp_path)
    return tmp_path


def edit(folder: Path, before: str, after: str) -> None:
    assert before in GRAPH
    (folder / "schema.graphql").write_text(GRAPH.replace(before, after))


class TestUpdateReleasedSchema:
    def test_unchanged_schema_leaves_the_file_unchanged(self, folder: Path) -> None:
        before = (folder / "released.graphql").read_text()
        assert update_released_schema(folder) == []
        assert (folder / "released.graphql").read_text() == before

    def test_every_kind_of_change_has_a_test_case(self) -> None:
        assert (set(BREAKING), set(DANGEROUS)) == (set(BreakingChangeType), set(DangerousChangeType))
        graph = build_schema(GRAPH)
        for breaking, edited in BREAKING.items():
            changes = find_breaking_changes(graph, build_schema(GRAPH.replace(*edited)))
            assert breaking in {change.type for change in changes}
        for dangerous, edited in DANGEROUS.items():
            (change,) = find_dangerous_changes(graph, build_schema(GRAPH.replace(*edited)))
            assert change.type == dangerous

    @pytest.mark.parametrize(("before", "after"), BREAKING.values(), ids=[kind.name for kind in BREAKING])
    def test_breaking_change_is_rejected(self, folder: Path, before: str, after: str) -> None:
        released = (folder / "released.graphql").read_text()
        edit(folder, before, after)
        with pytest.raises(BreakingChangeError):
            update_released_schema(folder)
        assert (folder / "released.graphql").read_text() == released

    @pytest.mark.parametrize(
        ("before", "after", "what"),
        [
            (' = "RUB"', "", "Filter.currency has lost its default and become required."),
            (" = 50", "", "Account.operations(first:) has lost its default and become required."),
        ],
    )
    def test_removed_default_of_a_required_input_is_rejected(
        self, folder: Path, before: str, after: str, what: str
    ) -> None:
        edit(folder, before, after)
        with pytest.raises(BreakingChangeError) as raised:
            update_released_schema(folder)
        first, *advice = str(raised.value).splitlines()
        assert first == f"gateway/schema.graphql: {what}"
        assert "the graph only grows" in advice[0]

    @pytest.mark.parametrize(("before", "after"), DANGEROUS.values(), ids=[kind.name for kind in DANGEROUS])
    def test_dangerous_change_is_accepted_and_reported_once(self, folder: Path, before: str, after: str) -> None:
        edit(folder, before, after)
        assert len(update_released_schema(folder)) == 1
        assert update_released_schema(folder) == []

    def test_removal_of_an_added_type_is_rejected(self, folder: Path) -> None:
        edit(folder, "type Query {", "type New {\n  id: ID\n}\n\ntype Query {\n  new: New")
        assert update_released_schema(folder) == []
        (folder / "schema.graphql").write_text(GRAPH)
        with pytest.raises(
            BreakingChangeError, match=r"gateway/schema\.graphql: New was removed\.\n.*Query\.new was removed\."
        ):
            update_released_schema(folder)

    def test_deprecation_and_changed_description_are_accepted(self, folder: Path) -> None:
        edit(folder, "  balance: String", '  "In roubles."\n  balance: String @deprecated(reason: "x")')
        assert update_released_schema(folder) == []

    def test_breaking_change_in_both_files_is_rejected(self, folder: Path) -> None:
        """An editor may rename a word in all files of the repository."""
        for file in folder.iterdir():
            file.write_text(file.read_text().replace("balance", "saldo"))
        with pytest.raises(BreakingChangeError, match="is not as `make gen` wrote it"):
            update_released_schema(folder)

    @pytest.mark.parametrize("text", ["", "# 0\n", GRAPH, "<<<<<<< HEAD\n"])
    def test_file_without_a_valid_digest_is_rejected(self, folder: Path, text: str) -> None:
        (folder / "released.graphql").write_text(text)
        with pytest.raises(BreakingChangeError, match="is not as `make gen` wrote it"):
            update_released_schema(folder)

    def test_committed_graph_is_the_released_graph(self, tmp_path: Path) -> None:
        for name in ("schema.graphql", "released.graphql"):
            shutil.copy(ROOT / "gateway" / name, tmp_path)
        assert update_released_schema(tmp_path) == []
        assert (tmp_path / "released.graphql").read_text() == (ROOT / "gateway" / "released.graphql").read_text()
