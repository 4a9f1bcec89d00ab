"""Reject changes that break clients of the graph, and record additions.

`make gen` runs this module as `python -m gateway.graphql.federation.breaking_changes`.

`released.graphql` is the graph that clients may rely on. It is committed together with `schema.graphql`, so a fresh
clone is enough to compare the two. Both contain the same graph in every commit, so the comparison shows each
removal from `schema.graphql`. The digest in the first line of `released.graphql` detects manual edits.
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
A client may already use this, so the graph only grows. Undo the change, or add the new field beside the old one and
deprecate the old one (CONTRIBUTING.md, "Add a GraphQL field"). To discard what `make gen` has recorded since your
last commit: git checkout -- gateway/released.graphql"""

_EDITED: Final = """\
gateway/released.graphql is not as `make gen` wrote it. Restore it: git checkout -- gateway/released.graphql. After a
merge, use the file of the branch that you merge into. Then run `make gen`."""


class BreakingChangeError(Exception):
    """The graph breaks clients, or `released.graphql` was edited. The message names the change and the next step."""


def update_released_schema(folder: Path) -> list[str]:
    """Compare `schema.graphql` with `released.graphql`, and update the latter if no change breaks a client.

    Args:
        folder: folder of both files.

    Returns:
        Descriptions of dangerous changes. They break no request, but clients may not handle them: a new member of an
        enum or a union, or another default value.

    Raises:
        BreakingChangeError: a change breaks clients, or `released.graphql` was edited. The file is unchanged.
    """
    file = folder / "released.graphql"
    text = (folder / "schema.graphql").read_text()
    new = build_schema(text)
    old = build_schema(_read(file)) if file.exists() else new
    if problems := [*(change.description for change in find_breaking_changes(old, new)), *_lost_defaults(old, new)]:
        raise BreakingChangeError("\n".join([*(f"gateway/schema.graphql: {each}" for each in problems), _BROKEN]))
    file.write_text(_with_digest(text))
    return [change.description for change in find_dangerous_changes(old, new)]


def _lost_defaults(old: GraphQLSchema, new: GraphQLSchema) -> Iterator[str]:
    """Describe arguments and input fields that are required now because their default was removed.

    graphql-core reports a removed default only as a dangerous change.
    """
    after = dict(_inputs(new))
    for name, before in _inputs(old):
        had_default = is_non_null_type(before.type) and not _is_required(before)
        if had_default and name in after and _is_required(after[name]):
            yield f"{name} has lost its default and become required."


def _is_required(definition: GraphQLArgument | GraphQLInputField) -> bool:
    if isinstance(definition, GraphQLArgument):
        return is_required_argument(definition)
    return is_required_input_field(definition)


def _inputs(schema: GraphQLSchema) -> Iterator[tuple[str, GraphQLArgument | GraphQLInputField]]:
    """Yield each argument and input field with its schema coordinate."""
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            yield from ((f"{type_.name}.{name}", field) for name, field in type_.fields.items())
        elif isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for name, field in type_.fields.items():
                yield from ((f"{type_.name}.{name}({each}:)", argument) for each, argument in field.args.items())


def _read(file: Path) -> str:
    """Return the graph in the file.

    Raises:
        BreakingChangeError: the file was edited.
    """
    content = file.read_text()
    text = content.partition("\n")[2]
    if content != _with_digest(text):
        raise BreakingChangeError(_EDITED)
    return text


def _with_digest(text: str) -> str:
    return f"# {hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def main() -> None:
    """Update `gateway/released.graphql` and print dangerous changes. Exit with 1 on a `BreakingChangeError`."""
    try:
        dangerous = update_released_schema(Path(__file__).parents[2])
    except BreakingChangeError as error:
        sys.exit(str(error))
    for each in dangerous:
        print(f"gateway/schema.graphql: {each} Clients may not handle it.")  # noqa: T201  output of `make gen`


if __name__ == "__main__":
    main()
