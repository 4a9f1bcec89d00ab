"""Parsed and validated documents, and their cache."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache
from graphql import DocumentNode, GraphQLError, GraphQLSchema
from graphql.language import OperationDefinitionNode

from gateway.errors import INVALID_GRAPHQL, OperationRefused
from gateway.graphql.execution.graphql_core_internals import SubfieldCache
from gateway.graphql.execution.validation import Validator
from gateway.graphql.protection.cost import OperationCost
from gateway.graphql.protection.limits import Limits, RequestBudget, check_limits, parse_document

_MAX_CHARACTERS: Final = 2**19
"""Maximum total length of the cached texts. A parsed document takes about a hundred times the memory of its text.

Without the cache a mutation takes three times as long.
"""

UNKNOWN_OPERATION: Final = "the document has no operation of the name in `operationName`"

_LITERALS: Final = re.compile(r'"|\d{3}')


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed and validated document.

    Attributes:
        characters: length of the text.
        node: AST.
        errors: the first validation errors; empty if the document is valid.
        schema: schema that the document is for.
        operations: operations by name.
        subfields: cache of sub-fields that all executions share; None for a document with directives, where sub-fields
            depend on variables.
    """

    characters: int
    node: DocumentNode
    errors: list[GraphQLError]
    schema: GraphQLSchema
    operations: Mapping[str | None, OperationDefinitionNode]
    subfields: SubfieldCache | None
    _costs: dict[str | None, OperationCost] = field(default_factory=dict)

    def cost(self, name: str | None) -> OperationCost:
        """Return the cost of the operation with this name.

        The cost of an operation is planned when the operation is first executed. Planning all operations of a document
        of fifty would take longer than validating the document.

        Raises:
            KeyError: the document has no such operation.
        """
        cost = self._costs.get(name)
        if cost is None:
            cost = self._costs[name] = OperationCost(self.schema, self.node, self.operations[name])
        return cost


class DocumentCache:
    """LRU cache of parsed and validated documents.

    Invalid documents and documents with literal values are not cached: literals may contain card numbers, and such
    documents are rarely repeated. Documents that use variables are cached.
    """

    def __init__(self, limits: Limits, validator: Validator) -> None:
        """Args:
        limits: limits of each document.
        validator: validates documents.
        """
        self._limits = limits
        self._validator = validator
        self._documents: LRUCache[tuple[GraphQLSchema, str], Document] = LRUCache(
            _MAX_CHARACTERS, getsizeof=lambda document: document.characters
        )

    def __len__(self) -> int:
        """Number of cached documents."""
        return len(self._documents)

    def load(
        self, schema: GraphQLSchema, text: str, budget: RequestBudget, operation_name: str | None = None
    ) -> Document:
        """Return the cached document of a text, or parse and validate the text.

        Args:
            schema: schema that the document is for.
            text: text of the document.
            budget: budget of the request. A cached document takes nothing from it.
            operation_name: name of the operation to execute, if the request has one.

        Raises:
            OperationRefused: the document exceeds a limit, or it has several operations and the name selects none.
            GraphQLSyntaxError: the text is not a GraphQL document.
        """
        key = schema, text
        document = self._documents.get(key)
        if document is not None:
            _check_operation_name(document.operations, operation_name)
            return document
        document = self._read(schema, text, budget, operation_name)
        if not document.errors and not _LITERALS.search(text) and len(text) <= _MAX_CHARACTERS:
            self._documents[key] = document
        return document

    def _read(self, schema: GraphQLSchema, text: str, budget: RequestBudget, operation_name: str | None) -> Document:
        node = parse_document(text, self._limits, budget)
        check_limits(node, self._limits, budget)
        operations = {
            each.name.value if each.name else None: each
            for each in node.definitions
            if isinstance(each, OperationDefinitionNode)
        }
        _check_operation_name(operations, operation_name)
        errors = self._validator.validate(schema, node)
        return Document(
            characters=len(text),
            node=node,
            errors=errors,
            schema=schema,
            operations=operations,
            subfields=None if "@" in text else {},
        )


def _check_operation_name(operations: Mapping[str | None, OperationDefinitionNode], name: str | None) -> None:
    """Refuse a request that selects none of several operations, because validating all of them takes long."""
    if len(operations) > 1 and not name:
        raise OperationRefused(INVALID_GRAPHQL, "`operationName` must say which operation is meant")
    if len(operations) > 1 and name not in operations:
        raise OperationRefused(INVALID_GRAPHQL, UNKNOWN_OPERATION)
