"""The texts that are asked for: which may be, and each read once."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from graphql import DocumentNode, GraphQLError, GraphQLSchema, NoSchemaIntrospectionCustomRule, specified_rules
from graphql import parse as parse_trusted
from graphql.language import OperationDefinitionNode
from pydantic import TypeAdapter
from strawberry.schema.schema import validate_document

from gateway.errors import OperationRefused
from gateway.graphql.execution.metrics import NOT_READ, OPERATION_ERRORS, OTHER
from gateway.graphql.federation.composition import Collected
from gateway.graphql.protection.cost import Cost
from gateway.graphql.protection.limits import Limits, check, parse

_KEPT_CHARACTERS: Final = 2**19
"""Of the texts that are kept, parsed and validated: without them a mutation takes three times as long. A document takes
some hundred times the memory of its text, so that is the bound.
"""

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


class Reader:
    """Reads each text once, but for one that is not valid, and one with values written into it: that may hold a card's
    number, and it seldom comes again. Texts that take their values by variables do. What has not come for longest makes
    room for what is new.
    """

    def __init__(self, limits: Limits, *, introspection: bool) -> None:
        """Args:
        limits: of each operation.
        introspection: whether the graph may be asked what it has.
        """
        self._limits = limits
        self._rules = (*specified_rules, *(() if introspection else (NoSchemaIntrospectionCustomRule,)))
        self._kept: dict[tuple[GraphQLSchema, str], Document] = {}
        self._characters = 0

    @property
    def remembered(self) -> int:
        """How many texts are kept."""
        return len(self._kept)

    def read(self, schema: GraphQLSchema, text: str) -> Document:
        """A text as a document of a schema.

        Raises:
            OperationRefused: it passes a limit; nothing more was done with it.
            GraphQLSyntaxError: it is no document.
        """
        document = self._kept.pop((schema, text), None)
        if document is None:
            document = self._read(schema, text)
            if document.errors or _LITERALS.search(text):
                return document
            self._characters += len(text)
        self._kept[schema, text] = document  # last of all
        while self._characters > _KEPT_CHARACTERS:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._characters -= len(oldest[1])
        return document

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
