"""Refuse changes that break clients of the graph, and record additions.

Run by `make gen` as `python -m gateway.graphql.federation.released`.

`released.graphql` has the graph as it is promised to clients. It stands beside `schema.graphql` in every commit, so a
clean clone is enough to compare the two; and since both say the same except while somebody is at work, nothing that was
ever committed can be taken back unnoticed. Its digest tells it from a file that was edited.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from graphql import (
    GraphQLArgument,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    find_breaking_changes,
    find_dangerous_changes,
    is_non_null_type,
    is_required_argument,
    is_required_input_field,
)

_BROKEN: Final = """\
Somebody may already ask for this: the graph is only added to. Take the change back, or put the new beside the old and
deprecate that (CONTRIBUTING.md, "Add a GraphQL field"). What `make gen` has written down since your last commit is
forgotten by: git checkout -- gateway/released.graphql"""

_EDITED: Final = """\
gateway/released.graphql is not as `make gen` wrote it. Restore it: git checkout -- gateway/released.graphql. After a
merge, take the file of the branch that you merge into. Then `make gen`."""


class Refused(Exception):
    """The graph breaks a promise. The message says which, and what to do."""


def release(folder: Path) -> list[str]:
    """Compares `schema.graphql` with `released.graphql` in the same folder, and makes them the same.

    Returns:
        The changes that break no request, but may surprise a client that has not met their like: a new member of an
        enum or a union, another default.

    Raises:
        Refused: something was changed or taken away. The file is as it was.
    """
    file = folder / "released.graphql"
    text = (folder / "schema.graphql").read_text()
    new = build_schema(text)
    old = build_schema(_read(file)) if file.exists() else new
    if problems := [*(change.description for change in find_breaking_changes(old, new)), *_newly_required(old, new)]:
        raise Refused("\n".join([*(f"gateway/schema.graphql: {each}" for each in problems), _BROKEN]))
    file.write_text(_with_digest(text))
    return [change.description for change in find_dangerous_changes(old, new)]


def _newly_required(old: GraphQLSchema, new: GraphQLSchema) -> Iterator[str]:
    """What a client could leave out for its default, and has to give now that it has none.

    To graphql-core a default that is gone is never more than dangerous.
    """
    after = dict(_inputs(new))
    for name, before in _inputs(old):
        had_default = is_non_null_type(before.type) and not _is_required(before)
        if had_default and name in after and _is_required(after[name]):
            yield f"{name} has lost its default and become required."


def _is_required(given: GraphQLArgument | GraphQLInputField) -> bool:
    return is_required_argument(given) if isinstance(given, GraphQLArgument) else is_required_input_field(given)


def _inputs(schema: GraphQLSchema) -> Iterator[tuple[str, GraphQLArgument | GraphQLInputField]]:
    """Each argument and input field by its coordinate."""
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            yield from ((f"{type_.name}.{name}", field) for name, field in type_.fields.items())
        elif isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in type_.fields.items():
                yield from ((f"{type_.name}.{name}({each}:)", argument) for each, argument in field.args.items())


def _read(file: Path) -> str:
    """The graph in the file.

    Raises:
        Refused: somebody else wrote it.
    """
    written = file.read_text()
    text = written.partition("\n")[2]
    if written != _with_digest(text):
        raise Refused(_EDITED)
    return text


def _with_digest(text: str) -> str:
    return f"# {hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def main() -> None:
    """Says which changes may surprise a client. Exits with 1 and says why, when the graph breaks a promise."""
    try:
        surprises = release(Path(__file__).parents[2])
    except Refused as refused:
        sys.exit(str(refused))
    for each in surprises:
        print(f"gateway/schema.graphql: {each} A client may not expect it.")  # noqa: T201  for whoever runs `make gen`


if __name__ == "__main__":
    main()
