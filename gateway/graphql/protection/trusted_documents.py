"""Allow-list of the documents that the gateway executes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from graphql import parse
from graphql.language import OperationDefinitionNode
from pydantic import TypeAdapter

from gateway.errors import OperationRefused
from gateway.graphql.execution.metrics import NOT_READ, OPERATION_ERRORS, OTHER

_Manifest: Final = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class TrustedDocuments:
    """Allow-list of documents.

    Attributes:
        texts: documents by the SHA-256 of their text, in hexadecimal. None: every document is executed.
    """

    texts: Mapping[str, str] | None

    @classmethod
    def load(cls, manifest: Path | None) -> Self:
        """Return the documents of a manifest: a JSON object from hash to text.

        GraphQL Code Generator and Relay write such files.

        Args:
            manifest: file. None: every document is executed.

        Raises:
            ValueError: the file is not such an object, or a hash is not the hash of its text.
        """
        if manifest is None:
            return cls(None)
        texts = _Manifest.validate_json(manifest.read_bytes())
        for name, text in texts.items():
            if hashlib.sha256(text.encode()).hexdigest() != name:
                raise ValueError(f"{manifest}: {name} is not the SHA-256 of its document")
        return cls(texts)

    @property
    def operation_names(self) -> list[str] | None:
        """Names of all operations in the documents; None if every document is executed."""
        if self.texts is None:
            return None
        definitions = [each for text in self.texts.values() for each in parse(text).definitions]
        return [each.name.value for each in definitions if isinstance(each, OperationDefinitionNode) and each.name]

    def resolve_text(self, query: str | None, document_id: str | None) -> str:
        """Return the text to execute. If there is an allow-list and the request has a text and a hash, use the hash.

        Args:
            query: text in the request.
            document_id: SHA-256 in the request, in hexadecimal.

        Raises:
            OperationRefused: the document is not in the list, or there is no list and the request has only a hash. The
                messages are those of the protocol of persisted queries: urql looks for them before it sends the query.
        """
        if self.texts is None:
            if query is None:
                raise _refused("NOT_SUPPORTED", "PersistedQueryNotSupported")
            return query
        if document_id is not None:
            if document_id not in self.texts:
                raise _refused("NOT_FOUND", "PersistedQueryNotFound")
            return self.texts[document_id]
        if query is None or hashlib.sha256(query.encode()).hexdigest() not in self.texts:
            raise _refused("ONLY", "only trusted documents are executed: send the hash of one")
        return query


def _refused(reason: str, message: str) -> OperationRefused:
    code = f"PERSISTED_QUERY_{reason}"
    OPERATION_ERRORS.labels(NOT_READ, OTHER, code).inc()
    return OperationRefused(code, message)
