"""Runs one operation from start to end: limits, cost, rate limit, stream limit, tracing, metrics, stable errors."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final, Self

from graphql import GraphQLError, GraphQLSchema, OperationType
from strawberry.types import ExecutionContext

from gateway.errors import INVALID_GRAPHQL, OperationRefused, format_graphql_error, rate_limited_to_graphql
from gateway.graphql.execution.context import Context
from gateway.graphql.execution.documents import Document, DocumentLoader
from gateway.graphql.execution.metrics import NOT_READ, OTHER, OperationNames, record_operation
from gateway.graphql.execution.strawberry_internals import (
    InvalidDocument,
    PreparingRunner,
    check_operation_type,
    requested_operation_name,
)
from gateway.graphql.execution.validation import Validator
from gateway.graphql.protection.cost import OperationCost
from gateway.graphql.protection.document_cost import document_cost
from gateway.graphql.protection.limits import Limits, RequestBudget
from gateway.http.rate_limits import Limit, RateLimiter
from gateway.http.stream_limits import StreamLimiter
from gateway.http.work_limits import OperationHold, WorkLimits
from kit.rpc import request_context
from kit.rpc.request_context import RequestContext
from kit.telemetry import tracing
from kit.telemetry.tracing import Span
from wallet.errors import InternalError, RateLimited, ResourceExhausted

CANCELLED: Final = "CANCELLED"
"""Error code in metrics and logs of an operation that was cancelled because the client disconnected."""

_PAYMENT: Final = 500
"""Unpaid cost at which a subscription's events are charged, so that one call of the rate limiter covers many events."""

_EVENT_SECONDS: Final = 0.0003
"""Time of the event loop that an event of a subscription takes."""

_NOTHING: Final = nullcontext()


@dataclass(frozen=True, slots=True)
class ExecutionPolicy:
    """Limits, document cache and metric labels that all executions share.

    Attributes:
        limits: limits of each request.
        validator: validates documents and variables.
        documents: parses and validates documents, with a cache.
        operation_names: operation names that are metric labels.
        streams: limiter of the open streams of each caller.
        work: limits of the work in progress of each client.
        are_documents_trusted: only documents of an allow-list are executed, so callers do not pay for parsing and
            validating them.
    """

    limits: Limits
    validator: Validator
    documents: DocumentLoader
    operation_names: OperationNames
    streams: StreamLimiter
    work: WorkLimits
    are_documents_trusted: bool = False

    def request_budget(self, context: Context) -> RequestBudget:
        """Return the budget of an operation's request. All operations of an HTTP request share one budget.

        Args:
            context: context of the request or the WebSocket. Each message on a WebSocket is a request with its own
                budget.
        """
        if context.budget is not None:
            return context.budget
        is_anonymous = request_context.current_request.get().principal is None
        budget = self.limits.new_budget(is_anonymous=is_anonymous)
        if context.operations is not None:
            context.budget = budget
        return budget


class OperationRunner(PreparingRunner):
    """Runner of one operation: loads the document, checks limits, charges the cost, records metrics and the span.

    It replaces Strawberry's extensions runner instead of being an extension. Strawberry's runner creates context
    managers for each hook, even without extensions, which takes about 10 % of an operation's time (ADR 22).
    Strawberry's own document caches are not used, because its validation cache hashes all nodes of a document on each
    lookup.
    """

    def __init__(self, policy: ExecutionPolicy, execution_context: ExecutionContext) -> None:
        """Args:
        policy: limits, document cache and metric labels that all executions share.
        execution_context: Strawberry's context of this execution.
        """
        super().__init__(execution_context)
        self._policy = policy
        self._cost: OperationCost | None = None
        self._document: Document | None = None
        self._compiled_fields = 0
        self._codes: dict[str, int] = {}  # number of errors by code: a stream may have an error in each event
        self._is_stream = False
        self._has_stream_result = False
        self._release_stream: Callable[[], None] | None = None
        self._payment: _StreamPayment | None = None
        self._hold = OperationHold(policy.work)
        self._budget: RequestBudget
        self._started: float
        self._outer_context: RequestContext
        self._span: Span

    def operation(self) -> Self:  # type: ignore[override]
        """Return the context manager that Strawberry enters at the start of the operation and leaves at its end."""
        return self

    async def __aenter__(self) -> None:
        self._started = time.perf_counter()
        self._budget = self._policy.request_budget(self.execution_context.context)
        self._outer_context = request_context.current_request.get()
        self._span = tracing.start_span("graphql", self._outer_context.trace)
        if self._span.is_recorded:
            request_context.current_request.set(replace(self._outer_context, trace=self._span.trace))

    async def __aexit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        if self._release_stream is not None:
            self._release_stream()
        if self._payment is not None:
            await self._payment.settle()
        if isinstance(error, asyncio.CancelledError):
            if not self._is_stream:
                self._count_error(CANCELLED)
        elif isinstance(error, Exception):
            self._count_error(InternalError.reason)
        context = self.execution_context
        if context.result is not None and not self._has_stream_result:
            self._format_errors(context.result)
        if self._document is not None and self.plan is not None and self.plan.fields > self._compiled_fields:
            self._policy.documents.update_size(self._document)
        actual = 0
        if context.result is not None and self._cost is not None:
            actual = self._cost.measure(context.result.data)
            context.context.cost.actual += actual
        self._hold.end(actual, is_time_shared=context.context.rate_limiter.time.is_shared)
        self._record(time.perf_counter() - self._started)
        if self._span.is_recorded:
            request_context.current_request.set(self._outer_context)

    async def prepare(self) -> None:
        """Load the document, count an open stream for a subscription, and charge the estimated cost to the caller.

        Then wait until the operation may be executed: expensive ones of one client follow each other.

        Raises:
            GraphQLSyntaxError: the text is not a document.
            InvalidDocument: the document has validation errors.
            OperationRefused: the document or the cost is above a limit, the request does not name an operation of the
                document, the transport does not execute operations of this type, the caller has too many open streams,
                the caller's rate limit of cost is exceeded, or the operation could not start before the deadline.
        """
        context, budget = self.execution_context, self._budget
        schema: GraphQLSchema = context.schema.core_schema  # type: ignore[attr-defined]  # attribute of `GraphSchema`
        text, name = context.query, requested_operation_name(context)
        if not text:
            raise OperationRefused(INVALID_GRAPHQL, "the query is empty: send a document in `query`")
        document = self._policy.documents.cached(schema, text)
        if document is None:
            document = await self._load_document(schema, text, name)
        context.graphql_document = document.node
        if document.errors:
            raise InvalidDocument(document.errors)
        self._cost = cost = document.operation_cost(name)
        self._choose_plan(document, name)
        check_operation_type(context, cost.type_name)
        self._is_stream = cost.operation_type is OperationType.SUBSCRIPTION
        if self._is_stream:
            self._acquire_stream()
        estimated = cost.estimate(context.variables)
        context.context.cost.estimated += estimated
        if estimated > budget.cost:
            raise _too_expensive(estimated, budget)
        budget.cost -= estimated
        current, rate_limiter = request_context.current_request.get(), context.context.rate_limiter
        if estimated:
            limit, client = rate_limiter.cost_limit_for(current.principal, (current.client_address,))
            if self._is_stream:
                self._payment = _StreamPayment(rate_limiter, limit, client, current.client_address, estimated)
            await _charge(rate_limiter, limit, client, min(estimated, limit.amount))
        if self._is_stream:
            await rate_limiter.pace_stream(current.client_address)
        else:
            try:
                await self._hold.acquire(estimated, is_on_websocket=context.context.operations is None)
            except ResourceExhausted as error:
                raise OperationRefused(error.reason, error.message) from None

    async def _load_document(self, schema: GraphQLSchema, text: str, operation_name: str | None) -> Document:
        """Parse and validate a document that is not cached.

        Charge the caller first, unless all documents are trusted.
        """
        current, rate_limiter = request_context.current_request.get(), self.execution_context.context.rate_limiter
        limit, client = rate_limiter.cost_limit_for(current.principal, (current.client_address,))
        cost = document_cost(text, self._budget.tokens)
        if not self._policy.are_documents_trusted:
            await _charge(rate_limiter, limit, client, min(cost, limit.amount))
        return await self._policy.documents.load(
            schema, text, cost=cost, client=client, budget=self._budget, operation_name=operation_name
        )

    def _choose_plan(self, document: Document, operation_name: str | None) -> None:
        """Execute the operation with its plan, if it has one."""
        self.plan = self._policy.documents.plan(document, operation_name)
        if self.plan is not None:
            self._document, self._compiled_fields = document, self.plan.fields

    def _acquire_stream(self) -> None:
        """Count an open stream and remove the request's deadline, because each RPC of a stream has its own time-out."""
        current = request_context.current_request.get()
        if current.principal is not None:  # anonymous callers are refused at the root field
            self._release_stream = self._policy.streams.acquire(current.principal)
            if self._release_stream is None:
                raise too_many_streams(self._policy.streams.limit)
        request_context.current_request.set(replace(current, deadline=None))

    def executing(self) -> AbstractAsyncContextManager[None]:  # type: ignore[override]
        """Return a no-op: nothing is measured around the execution alone."""
        return _NOTHING

    def on_stream_result(self, result: Any) -> AbstractAsyncContextManager[None]:  # type: ignore[override]
        """Format the errors of one result of a stream.

        Returns:
            A context manager that charges the event to the caller before it is sent, and waits while the caller's rate
            limit is exceeded. The charge at the start of the subscription pays for the first event.
        """
        self._is_stream = self._has_stream_result = True
        self._hold.end_execution()
        self._format_errors(result)
        return self._payment or _NOTHING

    def _format_errors(self, result: Any) -> None:
        """Format the errors of a result, and drop those above the limit of the request."""
        if not result.errors:
            return
        errors = result.errors
        if self._cost is not None and any(_is_in_variables(error) for error in errors):
            context = self.execution_context
            schema = context.schema.core_schema  # type: ignore[attr-defined]  # as in `prepare`
            errors = self._policy.validator.check_variables(schema, self._cost.operation, context.variables)
        shown = errors[: self._budget.errors]
        if len(shown) < len(errors):
            message = f"{len(errors) - len(shown)} more errors are left out"
            shown = [*shown, OperationRefused("GRAPHQL_ERRORS_OMITTED", message, omitted=len(errors) - len(shown))]
        if not self._is_stream:
            self._budget.errors = max(0, self._budget.errors - len(errors))
        result.errors = [format_graphql_error(error) for error in shown]
        for error in result.errors:
            self._count_error(error.extensions["code"])

    def _count_error(self, code: str) -> None:
        self._codes[code] = self._codes.get(code, 0) + 1

    def _record(self, seconds: float) -> None:
        context = self.execution_context
        operation_type, name = NOT_READ, OTHER
        if self._cost is not None:
            operation_type = self._cost.type_name
            name = self._policy.operation_names.label(self._cost.name, is_valid=True)
        else:
            with suppress(RuntimeError):  # there is no document, or it has no such operation
                operation_type = context.operation_type.value
                name = self._policy.operation_names.label(context.operation_name, is_valid=False)
        record_operation(operation_type, name, seconds, self._codes, context.context.operations)
        if self._span.is_recorded:
            attributes = {"graphql.operation.type": operation_type, "graphql.operation.name": name}
            self._span.set_attributes(attributes, name=f"{operation_type} {name}")
            if self._codes:
                self._span.fail(next(iter(self._codes)))
        self._span.end()


async def _charge(rate_limiter: RateLimiter, limit: Limit, client: str, cost: int) -> None:
    """Charge a cost to a client.

    Raises:
        OperationRefused: the client's rate limit is exceeded.
    """
    try:
        await rate_limiter.hit(limit, client, cost)
    except RateLimited as error:
        raise rate_limited_to_graphql(error) from None


class _StreamPayment(AbstractAsyncContextManager[None]):
    """Charges the events of a subscription to the caller's rate limit. Entered once for each event.

    With the argument `after`, a subscription may replay the account's whole history, which the charge at its start does
    not cover. The stream waits while the caller's rate limit is exceeded, and while its address has used more than its
    share of the event loop's time. `sleep(0)` before each event lets other requests run. Otherwise a replay would send
    all events of a page without a pause, and many streams may replay at the same time.
    """

    def __init__(self, rate_limiter: RateLimiter, limit: Limit, client: str, address: str, event_cost: int) -> None:
        self._address = address
        self._rate_limiter = rate_limiter
        self._limit = limit
        self._client = client
        self._event_cost = event_cost
        self._debt = -event_cost

    async def __aenter__(self) -> None:
        self._debt += self._event_cost
        if self._debt >= _PAYMENT:
            debt, self._debt = self._debt, 0
            await self._rate_limiter.wait(self._limit, self._client, debt)
        self._rate_limiter.time.charge(self._address, _EVENT_SECONDS)
        await self._rate_limiter.share_time(self._address, longest_seconds=inf)
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        pass

    async def settle(self) -> None:
        """Charge the remaining events at the end of the subscription, unless that would exceed the limit."""
        debt, self._debt = self._debt, 0
        if debt > 0:
            with suppress(RateLimited):
                await self._rate_limiter.hit(self._limit, self._client, debt)


def _is_in_variables(error: GraphQLError) -> bool:
    """Whether graphql-core has rejected the variables: the error has no path, and no cause outside graphql-core."""
    is_of_library = not isinstance(error, OperationRefused) and isinstance(error.original_error, GraphQLError | None)
    return is_of_library and not error.path


def _too_expensive(estimated: int, budget: RequestBudget) -> OperationRefused:
    allowed = budget.max_cost
    message = f"the estimated cost is {estimated}, and the maximum is {allowed}: request fewer items or fields"
    if estimated <= allowed:
        message = f"the requests of one array may cost {allowed} together: send fewer"
    return OperationRefused("GRAPHQL_COST_EXCEEDED", message, estimated=estimated, allowed=allowed)


def too_many_streams(limit: int) -> OperationRefused:
    """Return the error for a caller who already has the maximum number of open streams."""
    message = f"you have {limit} open WebSockets and subscriptions, which is the maximum: close some first"
    return OperationRefused("GRAPHQL_STREAMS_EXCEEDED", message, limit=limit)
