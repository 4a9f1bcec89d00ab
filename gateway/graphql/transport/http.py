"""GraphQL over HTTP, as specified in September 2026, for Strawberry's schema.

Cross-site request forgery has no effect. A form cannot post `application/json`, and every other content type is
rejected with 415. A GET request cannot execute a mutation. Callers authenticate with a header, which browsers, unlike
cookies, do not add on their own. So a required header against forgery, as in other servers, would add no protection.
"""

import asyncio
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry.types.graphql import OperationType

from gateway.errors import OperationRefused
from gateway.graphql.execution.context import Context
from gateway.graphql.execution.strawberry_internals import GraphSchema
from gateway.graphql.protection.trusted_documents import TrustedDocuments
from gateway.graphql.transport.requests import (
    EVENT_STREAM,
    GRAPHQL_RESPONSE,
    HTML,
    MULTIPART,
    SAFE_METHODS,
    GraphRequest,
    RequestRefused,
    accepts_multipart,
    negotiate,
    parse_request,
    read_header,
    read_text,
)
from gateway.graphql.transport.responses import (
    STREAM_FORMATS,
    JSONResult,
    ResultStream,
    format_refusal,
    format_request_error,
    format_result,
    response_status,
)
from gateway.http import pages
from gateway.http.media_types import JSON
from gateway.http.work_limits import SMALL_BODY_BYTES, WorkLimits, hold_body
from kit.rpc import request_context

_RESULT_TYPES: Final = (JSON, GRAPHQL_RESPONSE, EVENT_STREAM)
_QUERIES: Final = frozenset({OperationType.QUERY})
_QUERIES_AND_MUTATIONS: Final = _QUERIES | {OperationType.MUTATION}

_PAGE_HEADERS: Final = {"Content-Security-Policy": pages.content_security_policy(pages.GRAPHIQL)}


class GraphQLOverHTTP:
    """ASGI app: queries and mutations by POST, queries by GET, subscriptions as streams, GraphiQL.

    A stream has server-sent events, or the parts of a multipart body if the client accepts multipart subscriptions.

    A POST body may be an array of requests. They are executed concurrently, and the response is an array in the same
    order. Each of them counts as a request for rate limits. The specification does not define arrays, so the response
    is always `application/json` with status 200.
    """

    def __init__(
        self,
        schema: GraphSchema,
        new_context: Callable[[], Context],
        documents: TrustedDocuments,
        stop: asyncio.Event,
        work: WorkLimits,
        *,
        batch_limit: int,
        graphiql: bool,
    ) -> None:
        """Args:
        schema: schema to execute requests on.
        new_context: creates the context of each HTTP request. All requests of an array share one context.
        documents: allow-list of documents.
        stop: set when the gateway stops; streams end then.
        work: limits of the work in progress of each client.
        batch_limit: maximum number of requests in one array.
        graphiql: serve GraphiQL to browsers.
        """
        self._schema = schema
        self._new_context = new_context
        self._documents = documents
        self._stop = stop
        self._work = work
        self._batch_limit = batch_limit
        self._graphiql = graphiql

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        may_be_page = self._graphiql and scope["method"] in SAFE_METHODS and b"query=" not in scope["query_string"]
        offers = (*_RESULT_TYPES, HTML) if may_be_page else _RESULT_TYPES
        accept = read_header(scope, b"accept")
        if accepts_multipart(accept):
            offers = (*offers, MULTIPART)
        media_type = negotiate(accept, offers)
        try:
            response = await self._respond(media_type, scope, receive)
        except RequestRefused as error:
            media_type = GRAPHQL_RESPONSE if media_type == GRAPHQL_RESPONSE else JSON
            response = JSONResult(format_refusal(error), error.status, media_type, error.headers)
        except OperationRefused as error:
            response = JSONResult(format_request_error(error), HTTPStatus.BAD_REQUEST, JSON)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, media_type: str, scope: Scope, receive: Receive) -> ASGIApp:
        if media_type == HTML:
            return HTMLResponse(pages.GRAPHIQL, headers=_PAGE_HEADERS)
        if not media_type:
            raise RequestRefused(HTTPStatus.NOT_ACCEPTABLE, f"accept {GRAPHQL_RESPONSE}")
        text = await read_text(scope, receive)
        if len(text) <= SMALL_BODY_BYTES:
            return await self._execute_text(text, media_type, scope)
        async with hold_body(self._work.bodies, len(text)):
            return await self._execute_text(text, media_type, scope)

    async def _execute_text(self, text: bytes, media_type: str, scope: Scope) -> ASGIApp:
        request = parse_request(scope["method"], text, self._batch_limit)
        context = self._new_context()
        context.operations = scope["operations"] = []  # the middleware logs them
        if isinstance(request, list):
            if len(request) > 1:  # the middleware has already counted one request
                counted = context.rate_limiter.limit_for(
                    request_context.current_request.get().principal, scope.get("client")
                )
                await context.rate_limiter.hit(*counted, len(request) - 1)
            results = await asyncio.gather(*(self._execute(each, context, _QUERIES_AND_MUTATIONS) for each in request))
            return JSONResult(results, HTTPStatus.OK, JSON, _cost_headers(context))
        operations = _QUERIES if scope["method"] in SAFE_METHODS else _QUERIES_AND_MUTATIONS
        if media_type in STREAM_FORMATS:
            return await self._stream(request, context, operations | {OperationType.SUBSCRIPTION}, media_type)
        result = await self._execute(request, context, operations)
        status = response_status(result, media_type)
        headers = _cost_headers(context)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "POST"
        return JSONResult(result, status, media_type, headers)

    async def _execute(
        self, request: GraphRequest, context: Context, operations: Collection[OperationType]
    ) -> dict[str, Any]:
        try:
            query = self._documents.resolve_text(request.query, request.document_id)
        except OperationRefused as error:
            return format_request_error(error)
        result = await self._schema.execute(
            query,
            variable_values=request.variables,
            context_value=context,
            operation_name=request.operation_name,
            operation_extensions=request.extensions,
            allowed_operation_types=operations,
        )
        return format_result(result)

    async def _stream(
        self, request: GraphRequest, context: Context, operations: Collection[OperationType], media_type: str
    ) -> ResultStream:
        results = await self._schema.stream(
            self._documents.resolve_text(request.query, request.document_id),
            variable_values=request.variables,
            context_value=context,
            operation_name=request.operation_name,
            operation_extensions=request.extensions,
            allowed_operation_types=operations,
        )
        return ResultStream(results, self._stop, media_type)


def _cost_headers(context: Context) -> dict[str, str]:
    cost = context.cost
    return {"X-GraphQL-Cost-Estimated": str(cost.estimated), "X-GraphQL-Cost-Actual": str(cost.actual)}
