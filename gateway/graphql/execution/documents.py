"""Parsed and validated documents, and their cache."""

import asyncio
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from cachetools import LRUCache
from graphql import DocumentNode, GraphQLError, GraphQLSchema
from graphql.language import OperationDefinitionNode

from gateway.errors import INVALID_GRAPHQL, OperationRefused
from gateway.graphql.execution.compiled import CompiledOperation, LongLists, NotCompilable, OperationCompiler, Options
from gateway.graphql.execution.field_errors import locate_error
from gateway.graphql.execution.validation import Validator
from gateway.graphql.protection.cost import OperationCost
from gateway.graphql.protection.limits import Limits, RequestBudget, check_limits, parse_document
from kit.runtime.fair_limit import FairLimit
from kit.runtime.pauses import ITEMS_PER_TURN

_MAX_CACHED_COST: Final = 1_000_000
"""Maximum sum of the costs (`document_cost`) of the cached documents: about a thousand ordinary documents.

A caller who replaces all cached documents by new ones pays this cost: a third of the default rate limit for one minute.
A cached document takes about 50 bytes of memory per unit of its cost. A mutation takes three times as long if its
document is not cached.
"""

_FIELD_COST: Final = 20
"""Cost of a compiled field in the cache: it takes about 1 KB of memory."""

_SWITCH_SECONDS: Final = 0.0005
"""Python's switch interval while the document thread works.

After this time the thread must release the interpreter lock to the event loop. Python's default is 5 ms.
"""

UNKNOWN_OPERATION: Final = "the document has no operation of the name in `operationName`"

_LITERALS: Final = re.compile(r'"|\d{3}')


_OPTIONS: Final = Options(
    locate=locate_error,
    # A pause takes as long as the part before it, because another request needs many turns of the event loop.
    long_lists=LongLists(ITEMS_PER_TURN, asyncio.sleep),
    max_variable_errors=1,  # the runner describes invalid variables itself
)
"""Options of compiled operations."""


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed and validated document.

    Attributes:
        cost: cost of parsing and validating the document.
        text: text of the document.
        node: AST.
        errors: the first validation errors; empty if the document is valid.
        schema: schema that the document was validated against.
        operations: operations by name.
        plans: compiled operations by name, None for those that graphql-core executes; None if the document is not
            cached, so that none of its operations is compiled.
    """

    cost: int
    text: str
    node: DocumentNode
    errors: list[GraphQLError]
    schema: GraphQLSchema
    operations: Mapping[str | None, OperationDefinitionNode]
    plans: dict[str | None, CompiledOperation | None] | None = None
    _operation_costs: dict[str | None, OperationCost] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Size in the cache, in the unit of `cost`."""
        return self.cost + _FIELD_COST * sum(plan.fields for plan in (self.plans or {}).values() if plan)

    def operation_cost(self, name: str | None) -> OperationCost:
        """Return the cost of the operation that a request selects.

        The cost of an operation is planned when the operation is first executed. In a document of fifty operations,
        planning all of them would take longer than validating the document.

        Args:
            name: name of the operation in the request, or None.

        Raises:
            OperationRefused: the name selects no operation.
        """
        cost = self._operation_costs.get(name)
        if cost is None:
            operation = _select_operation(self.operations, name)
            cost = self._operation_costs[name] = OperationCost(self.schema, self.node, operation)
        return cost


class DocumentLoader:
    """Parses and validates documents, with an LRU cache.

    One thread processes the documents one at a time, so that the event loop serves other requests at the same time.
    Callers take turns. Invalid documents and documents with literal values are not cached: literals may contain card
    numbers, and such documents are rarely repeated. Documents that use variables are cached.
    """

    def __init__(
        self, limits: Limits, validator: Validator, executor: Executor | None = None, *, compile_operations: bool = True
    ) -> None:
        """Args:
        limits: limits of each document.
        validator: validates documents.
        executor: runs the work of one document at a time. None: a thread.
        compile_operations: compile the operations of cached documents.
        """
        self._limits = limits
        self._validator = validator
        self._executor = executor or ThreadPoolExecutor(1, "document")
        self._turns = FairLimit(1, 1)
        self._documents: LRUCache[tuple[GraphQLSchema, str], Document] = LRUCache(
            _MAX_CACHED_COST, getsizeof=lambda document: document.size
        )
        self._compile_operations = compile_operations
        self._compilers: dict[GraphQLSchema, OperationCompiler] = {}

    def __len__(self) -> int:
        """Number of cached documents."""
        return len(self._documents)

    def cached(self, schema: GraphQLSchema, text: str) -> Document | None:
        """Return the cached document of a text.

        Args:
            schema: schema that the document is for.
            text: text of the document.
        """
        return self._documents.get((schema, text))

    async def load(
        self,
        schema: GraphQLSchema,
        text: str,
        *,
        cost: int,
        client: str,
        budget: RequestBudget,
        operation_name: str | None = None,
    ) -> Document:
        """Parse and validate a text, and cache the document.

        Args:
            schema: schema that the document is for.
            text: text of the document.
            cost: cost of parsing and validating the text (`document_cost`).
            client: key of the caller. The documents of one caller are processed one after another.
            budget: budget of the request. It stays unchanged if another request caches the document while this one
                waits.
            operation_name: name of the operation to execute, if the request has one.

        Raises:
            OperationRefused: the document exceeds a limit, or it has several operations and the name selects none.
            GraphQLSyntaxError: the text is not a GraphQL document.
        """
        async with self._turns.hold(client):
            document = self.cached(schema, text)
            if document is None:
                loop = asyncio.get_running_loop()
                document = await loop.run_in_executor(
                    self._executor, self._read, schema, text, cost, budget, operation_name
                )
                if not document.errors and not _LITERALS.search(text) and cost <= _MAX_CACHED_COST:
                    document = replace(document, plans={}) if self._compile_operations else document
                    self._documents[schema, text] = document
            return document

    def plan(self, document: Document, operation_name: str | None) -> CompiledOperation | None:
        """Return a compiled operation of a valid document; None if graphql-core must execute the operation.

        Args:
            document: the document.
            operation_name: name of the operation in the request, or None.
        """
        if document.plans is None:
            return None
        if operation_name not in document.plans:
            compiler = self._compilers.get(document.schema)
            if compiler is None:
                compiler = self._compilers[document.schema] = OperationCompiler(document.schema, _OPTIONS)
            try:
                document.plans[operation_name] = compiler.compile(document.node, operation_name)
            except NotCompilable:
                document.plans[operation_name] = None
        return document.plans[operation_name]

    def update_size(self, document: Document) -> None:
        """Make room for the fields of a document that were compiled since it was cached."""
        key = document.schema, document.text
        if self._documents.get(key) is document:
            self._documents.pop(key)
            if document.size <= _MAX_CACHED_COST:
                self._documents[key] = document

    def _read(
        self, schema: GraphQLSchema, text: str, cost: int, budget: RequestBudget, operation_name: str | None
    ) -> Document:
        with _frequent_switches():
            return read_document(schema, text, self._limits, self._validator, budget, operation_name, cost)


def read_document(
    schema: GraphQLSchema,
    text: str,
    limits: Limits,
    validator: Validator,
    budget: RequestBudget,
    operation_name: str | None = None,
    cost: int = 0,
) -> Document:
    """Parse and validate a document. Arguments and exceptions: see `DocumentLoader.load`."""
    node = parse_document(text, limits, budget)
    check_limits(node, limits, budget)
    operations = {
        each.name.value if each.name else None: each
        for each in node.definitions
        if isinstance(each, OperationDefinitionNode)
    }
    if len(operations) > 1:  # refused before validation, which would take long
        _select_operation(operations, operation_name)
    return Document(
        cost=cost,
        text=text,
        node=node,
        errors=validator.validate(schema, node),
        schema=schema,
        operations=operations,
    )


@contextmanager
def _frequent_switches() -> Iterator[None]:
    """Set the switch interval of the interpreter to `_SWITCH_SECONDS` while the block runs."""
    default = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(default)


def _select_operation(
    operations: Mapping[str | None, OperationDefinitionNode], name: str | None
) -> OperationDefinitionNode:
    if len(operations) > 1 and not name:
        raise OperationRefused(INVALID_GRAPHQL, "`operationName` must say which operation is meant")
    operation = next(iter(operations.values()), None) if name is None else operations.get(name)
    if operation is None:
        raise OperationRefused(INVALID_GRAPHQL, UNKNOWN_OPERATION)
    return operation
