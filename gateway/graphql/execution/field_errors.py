"""Errors of fields, as both executors report them."""

from collections.abc import Sequence

from graphql import FieldNode, GraphQLError


def locate_error(error: Exception, nodes: Sequence[FieldNode], path: list[str | int]) -> GraphQLError:
    """Return the error of a field with its path and node, without its line: thousands of lines would take long to find.

    Args:
        error: the exception. An error that has a path is returned unchanged.
        nodes: nodes of the field.
        path: path of the field.
    """
    if isinstance(error, GraphQLError) and error.path is not None:
        return error
    located = GraphQLError(str(error), path=path, original_error=error)
    located.nodes = getattr(error, "nodes", None) or [nodes[0]]
    return located
