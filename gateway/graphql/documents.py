"""The texts that are asked for: which may be, and each read once."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from graphql import DocumentNode, GraphQLError, GraphQLSchema, NoSchemaIntrospectionCustomRule, specified_rules
from graphql import parse as parse_trusted
from graphql.language import OperationDefinitionNode
from pydantic import TypeAdapter
from strawberry.schema.schema import validate_document

from gateway.composition import Collected
from gateway.errors import OperationRefused
from gateway.graphql.cost import Cost
from gateway.graphql.limits import Limits, check, parse
from gateway.graphql.metrics import NOT_READ, OPERATION_ERRORS, OTHER

_CACHED_DOCUMENTS: Final = 1_000
"""Texts that are kept, parsed and validated: without them a mutation takes three times as long."""

_LITERALS: Final = re.compile(r'"|\d{3}')

_Manifest: Final = TypeAdapter(dict[str, str])


@dataclass(frozen=True, slots=True)
class Document:
    """A text that was read.

    Attributes:
        node: what it is.
        errors: what is not valid about it.
        costs: of its operations by name, if it is valid.
        collected: what its executions share.
    """

    node: DocumentNode
    errors: list[GraphQLError]
    costs: Mapping[str | None, Cost]
    collected: Collected | None


class _LiteralsError(Exception):
    """A text has values written into it."""


class Reader:
    """Reads each text once, but for one with values written into it: that may hold a card's number, and it seldom comes
    again. Texts that take their values by variables do.
    """

    def __init__(self, limits: Limits, *, introspection: bool) -> None:
        """Args:
        limits: of each operation.
        introspection: whether the graph may be asked what it has.
        """
        self._limits = limits
        self._rules = (*specified_rules, *(() if introspection else (NoSchemaIntrospectionCustomRule,)))
        self._read_once = lru_cache(maxsize=_CACHED_DOCUMENTS)(self._read_plain)

    @property
    def remembered(self) -> int:
        """How many texts are kept."""
        return self._read_once.cache_info().currsize

    def read(self, schema: GraphQLSchema, text: str) -> Document:
        """A text as a document of a schema.

        Raises:
            OperationRefused: it passes a limit; nothing more was done with it.
            GraphQLSyntaxError: it is no document.
        """
        try:
            return self._read_once(schema, text)
        except _LiteralsError:  # which is not remembered
            return self._read(schema, text)

    def _read_plain(self, schema: GraphQLSchema, text: str) -> Document:
        if _LITERALS.search(text):
            raise _LiteralsError
        return self._read(schema, text)

    def _read(self, schema: GraphQLSchema, text: str) -> Document:
        node = parse(text, self._limits)
        check(node, self._limits)
        errors = validate_document(schema, node, self._rules)
        operations = [] if errors else [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
        costs = [Cost(schema, node, each) for each in operations]
        # What a directive leaves out, it may leave out this time only.
        return Document(node, errors, {each.name: each for each in costs}, None if "@" in text else {})


@dataclass(frozen=True)
class TrustedDocuments:
    """The only texts that are executed, where there is a list of them.

    Attributes:
        texts: by the SHA-256 of each, in hexadecimal; None: every text is.
    """

    texts: Mapping[str, str] | None

    @classmethod
    def load(cls, manifest: Path | None) -> Self:
        """From a JSON object, in the form of GraphQL Code Generator and of Relay: each text by its hash.

        Raises:
            ValueError: it is none, or a hash is not that of its text.
        """
        if manifest is None:
            return cls(None)
        texts = _Manifest.validate_json(manifest.read_bytes())
        for name, text in texts.items():
            if hashlib.sha256(text.encode()).hexdigest() != name:
                raise ValueError(f"{manifest}: {name} is not the SHA-256 of its document")
        return cls(texts)

    @property
    def operations(self) -> list[str] | None:
        """The names of their operations; None where every text is executed."""
        if self.texts is None:
            return None
        definitions = [each for text in self.texts.values() for each in parse_trusted(text).definitions]
        return [each.name.value for each in definitions if isinstance(each, OperationDefinitionNode) and each.name]

    def text(self, query: str | None, document_id: str | None) -> str:
        """What to execute for a request that has a text, the hash of one, or both, of which the hash counts here.

        Raises:
            OperationRefused: that is not executed.
        """
        if self.texts is None:
            if query is None:
                raise _refused("NOT_SUPPORTED", "no documents are kept here: send the query")
            return query
        if document_id is not None:
            if document_id not in self.texts:
                raise _refused("NOT_FOUND", "no trusted document has this hash")
            return self.texts[document_id]
        if query is None or hashlib.sha256(query.encode()).hexdigest() not in self.texts:
            raise _refused("ONLY", "only trusted documents are executed: send the hash of one")
        return query


def _refused(why: str, message: str) -> OperationRefused:
    code = f"PERSISTED_QUERY_{why}"
    OPERATION_ERRORS.labels(NOT_READ, OTHER, code).inc()
    return OperationRefused(code, message)
