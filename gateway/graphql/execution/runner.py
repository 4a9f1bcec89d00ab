"""The merged graph and its subgraphs, with what every execution of them needs."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Final, Self

import strawberry
from graphql import GraphQLError, OperationType
from strawberry.extensions.runner import SchemaExtensionsRunner
from strawberry.types import ExecutionContext

from gateway.errors import INVALID_GRAPHQL, OperationRefused, format_graphql_error, rate_limited_to_graphql
from gateway.graphql.execution.documents import Reader
from gateway.graphql.execution.metrics import NOT_READ, OTHER, Names, Told, tell
from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.federation.composition import SUBGRAPHS, Collected, compose, subgraph
from gateway.graphql.protection.access import guard
from gateway.graphql.protection.cost import Cost, Spent
from gateway.http.rate_limits import RateLimiter
from gateway.http.stream_limits import StreamLimiter
from kit.rpc import request_context
from kit.rpc.request_context import RequestContext
from kit.telemetry import tracing
from kit.telemetry.tracing import Span
from subgraphs.analytics.client import AnalyticsClient
from subgraphs.bank.client import BankClient
from subgraphs.bank.graph import AccountLoader, TransferLoader, account_loader, transfer_loader
from subgraphs.card.client import CardClient
from subgraphs.card.graph import TopUpLoader, top_up_loader
from subgraphs.identity.client import IdentityClient
from subgraphs.identity.graph import UserLoader, user_loader
from wallet.errors import RateLimited

GRAPH_PATH: Final = "/graphql"
"""Where clients find the whole graph."""

CANCELLED: Final = "CANCELLED"
"""The code of what nobody waits for any more."""

_NOTHING: Final = nullcontext()


@dataclass
class Context:
    """What resolvers need of one request, or of one WebSocket connection. Its loaders are made when first asked for.

    Attributes:
        spent: what the operations cost.
        operations: where what became of each is noted, for the request's line of log; None: each has its own line.
        connection_params: what a WebSocket's caller said of themselves.
    """

    bank: BankClient
    analytics: AnalyticsClient
    card: CardClient
    identity: IdentityClient
    rates: RateLimiter
    spent: Spent = field(default_factory=Spent)
    operations: list[Told] | None = None
    connection_params: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def accounts(self) -> AccountLoader:  # noqa: D102  as the subgraphs' contexts have it
        return account_loader(self.bank)

    @cached_property
    def transfers(self) -> TransferLoader:  # noqa: D102  as above
        return transfer_loader(self.bank)

    @cached_property
    def top_ups(self) -> TopUpLoader:  # noqa: D102  as above
        return top_up_loader(self.card)

    @cached_property
    def users(self) -> UserLoader:  # noqa: D102  as above
        return user_loader(self.identity)


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for every execution.

    Attributes:
        reader: of what is to be executed.
        max_cost: of an operation, as estimated.
        names: of operations that are told apart.
        suggestions: whether errors may say what else was perhaps meant.
        streams: that callers have open.
    """

    reader: Reader
    max_cost: int
    names: Names
    suggestions: bool
    streams: StreamLimiter


class PerExecution(SchemaExtensionsRunner):
    """Sees an operation from its beginning to its end, where a span of it would begin and end too: reads each text
    once, holds it against the limits, adds to the context's `spent` what it costs, and makes its errors stable.

    It is what runs extensions rather than one of them: what Strawberry makes anew for each hook of an operation, those
    that no extension has too, takes as long as a tenth of the operation. Its own two caches would not do: the one of
    what is valid looks each document up by a hash of all its nodes.
    """

    def __init__(self, policy: Policy, execution_context: ExecutionContext) -> None:
        super().__init__(execution_context)
        self.collected: Collected | None = None
        self._policy = policy
        self._cost: Cost | None = None
        self._codes: list[str] = []
        self._is_stream = False
        self._close: Callable[[], None] | None = None
        self._started: float
        self._around: RequestContext
        self._span: Span

    def operation(self) -> Self:  # type: ignore[override]
        """All of an operation's life, which Strawberry enters and leaves."""
        return self

    async def __aenter__(self) -> None:
        self._started = time.perf_counter()
        self._around = request_context.current_request.get()
        self._span = tracing.start_span("graphql", self._around.trace)
        if self._span.is_recorded:
            request_context.current_request.set(replace(self._around, trace=self._span.trace))

    async def __aexit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        if self._close is not None:
            self._close()
        if isinstance(error, asyncio.CancelledError):
            if not self._is_stream:
                self._codes.append(CANCELLED)
        elif isinstance(error, Exception):  # Strawberry's own, for an operation that is not there or not allowed
            self._codes.append(INVALID_GRAPHQL)
        context = self.execution_context
        if context.result is not None and not self._is_stream:
            self._stabilise(context.result)
        if context.result is not None and self._cost is not None:
            context.context.spent.actual += self._cost.actual(context.result.data)
        self._tell(time.perf_counter() - self._started)
        if self._span.is_recorded:
            request_context.current_request.set(self._around)

    def parsing(self) -> AbstractAsyncContextManager[None]:  # type: ignore[override]
        """Sets the document and its errors.

        Raises:
            GraphQLError: the text is no document, or nothing says which of its operations is meant.
            OperationRefused: it passes a limit.
        """
        context = self.execution_context
        document = self._policy.reader.read(context.schema._schema, context.query or "")  # noqa: SLF001  as Strawberry's caches do
        if len(document.costs) > 1 and not context._provided_operation_name:  # noqa: SLF001  Strawberry takes the first
            raise GraphQLError("`operationName` must say which operation is meant")
        context.graphql_document, context.pre_execution_errors = document.node, document.errors
        self.collected = document.collected
        self._cost = document.costs.get(context.operation_name)
        if self._cost is not None:
            self._is_stream = self._cost.kind is OperationType.SUBSCRIPTION
            if self._is_stream:
                self._open()
            estimated, allowed = self._cost.estimated(context.variables), self._policy.max_cost
            context.context.spent.estimated += estimated
            if estimated > allowed:
                message = f"the operation may cost {estimated}, and {allowed} is allowed: ask for fewer items at once"
                raise OperationRefused("GRAPHQL_COST_EXCEEDED", message, estimated=estimated, allowed=allowed)
            return _Paid(context.context.rates, estimated)
        return _NOTHING

    def _open(self) -> None:
        """Counts a stream, and lets its request last: its calls have a time each."""
        here = request_context.current_request.get()
        if here.principal is not None:  # nobody else gets beyond the root
            self._close = self._policy.streams.acquire(here.principal)
            if self._close is None:
                raise too_many_streams(self._policy.streams.limit)
        request_context.current_request.set(replace(here, deadline=None))

    def validation(self) -> AbstractAsyncContextManager[None]:  # type: ignore[override]  # noqa: D102  done with parsing
        return _NOTHING

    def executing(self) -> AbstractAsyncContextManager[None]:  # type: ignore[override]  # noqa: D102
        return _NOTHING

    def on_stream_result(self, result: Any) -> AbstractAsyncContextManager[None]:  # type: ignore[override]
        """Makes the errors of one result of a stream stable."""
        self._is_stream = True
        self._stabilise(result)
        return _NOTHING

    def _stabilise(self, result: Any) -> None:
        if result.errors:
            result.errors = [
                format_graphql_error(error, suggestions=self._policy.suggestions) for error in result.errors
            ]
            self._codes += [error.extensions["code"] for error in result.errors]

    def _tell(self, seconds: float) -> None:
        context = self.execution_context
        kind, name = NOT_READ, OTHER
        if self._cost is not None:
            kind, name = self._cost.kind.value, self._policy.names.label(self._cost.name, is_valid=True)
        else:
            with suppress(RuntimeError):  # there is no document, or no such operation in it
                kind = context.operation_type.value
                name = self._policy.names.label(context.operation_name, is_valid=False)
        tell(kind, name, seconds, self._codes, context.context.operations)
        if self._span.is_recorded:
            attributes = {"graphql.operation.type": kind, "graphql.operation.name": name}
            self._span.set_attributes(attributes, name=f"{kind} {name}")
            if self._codes:
                self._span.fail(self._codes[0])
        self._span.end()


class _Paid(AbstractAsyncContextManager[None]):
    """Counts what an operation may cost, of whoever asks for it."""

    def __init__(self, rates: RateLimiter, cost: int) -> None:
        self._rates = rates
        self._cost = cost

    async def __aenter__(self) -> None:
        """Counts.

        Raises:
            OperationRefused: it would be more than one caller may ask for in a while.
        """
        caller = request_context.current_request.get().principal
        if caller is not None and self._cost:  # nobody gets beyond the root
            try:
                await self._rates.hit(self._rates.cost, caller.scope, self._cost)
            except RateLimited as error:
                raise rate_limited_to_graphql(error) from None

    async def __aexit__(self, *_: object) -> None:
        pass


def too_many_streams(limit: int) -> OperationRefused:
    """What is said to a caller who wants one more."""
    message = f"{limit} WebSockets and subscriptions of yours are open, and no more are allowed at once: close some"
    return OperationRefused("GRAPHQL_STREAMS_EXCEEDED", message, limit=limit)


def build_schemas(options: GraphOptions, streams: StreamLimiter) -> dict[str, strawberry.Schema]:
    """By path: the merged graph and, with federation, each subgraph alone; all with what every execution needs."""
    reader = Reader(options.limits, introspection=not options.production)
    names = Names(options.documents.operations)
    policy = Policy(reader, options.limits.cost, names, not options.production, streams)
    new_runner = partial(PerExecution, policy)
    schemas = {GRAPH_PATH: compose(new_runner, federation=options.federation)}
    if options.federation:
        schemas |= {f"/subgraphs/{name}/graphql": subgraph(name, new_runner) for name in SUBGRAPHS}
    for schema in schemas.values():
        guard(schema._schema)  # noqa: SLF001  what Strawberry builds, it does not hand out
    return schemas
