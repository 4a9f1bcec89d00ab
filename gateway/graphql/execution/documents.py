"""Parsed and validated documents, with a cache of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache
from graphql import DocumentNode, GraphQLError, GraphQLSchema
from graphql.language import OperationDefinitionNode

from gateway.graphql.execution.graphql_core_internals import SubfieldCache
from gateway.graphql.execution.validation import Validator
from gateway.graphql.protection.cost import OperationCost
from gateway.graphql.protection.limits import Limits, RequestBudget, check_limits, parse_document

_MAX_CHARACTERS: Final = 2**19
"""Total length of the cached texts. A parsed document takes some hundred times the memory of its text.

Without the cache a mutation takes three times as long.
"""

_LITERALS: Final = re.compile(r'"|\d{3}')


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed and validated document.

    Attributes:
        characters: length of the text.
        node: AST.
        errors: the first validation errors.
        costs: cost of each operation by name; empty for an invalid document.
        subfields: cache of sub-fields that all executions share; None for a document with directives, where sub-fields
            depend on variables.
    """

    characters: int
    node: DocumentNode
    errors: list[GraphQLError]
    costs: Mapping[str | None, OperationCost]
    subfields: SubfieldCache | None


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

    def load(self, schema: GraphQLSchema, text: str, budget: RequestBudget) -> Document:
        """Return the cached document of a text, or parse and validate the text.

        Args:
            schema: schema that the document is for.
            text: text of the document.
            budget: budget of the request. A cached document takes nothing from it.

        Raises:
            OperationRefused: the document is above a limit. It has not been validated.
            GraphQLSyntaxError: the text is not a GraphQL document.
        """
        key = schema, text
        document = self._documents.get(key)
        if document is not None:
            return document
        document = self._read(schema, text, budget)
        if not document.errors and not _LITERALS.search(text) and len(text) <= _MAX_CHARACTERS:
            self._documents[key] = document
        return document

    def _read(self, schema: GraphQLSchema, text: str, budget: RequestBudget) -> Document:
        node = parse_document(text, self._limits, budget)
        check_limits(node, self._limits)
        errors = self._validator.validate(schema, node)
        operations = [] if errors else [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
        costs = [OperationCost(schema, node, each) for each in operations]
        return Document(
            characters=len(text),
            node=node,
            errors=errors,
            costs={each.name: each for each in costs},
            subfields=None if "@" in text else {},
        )
