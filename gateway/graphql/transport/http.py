"""GraphQL over HTTP, by its specification (September 2026), on Strawberry's schema.

What a browser sends for a foreign page without asking us first has no effect: a form can post no `application/json`,
which is all that is taken (415 for the rest), and what is sent by GET changes nothing. Nor would it be anybody's
request: callers are known by a token in a header, which a browser adds to nothing by itself, as it does cookies. So
there is nothing that one more header, demanded of simple requests, would protect.
"""

import asyncio
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, Final

import strawberry
from graphql import GraphQLError
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from gateway.errors import OperationRefused
from gateway.graphql.execution.documents import TrustedDocuments
from gateway.graphql.execution.schema import Context
from gateway.graphql.transport.requests import (
    EVENT_STREAM,
    GRAPHQL_RESPONSE,
    HTML,
    JSON,
    SAFE_METHODS,
    GraphRequest,
    Refused,
    header,
    negotiated,
    read,
)
from gateway.graphql.transport.responses import EventStream, JSONResult, formatted, refusal, request_error, status_of
from gateway.http import pages
from kit.rpc import request_context

_RESULTS: Final = (JSON, GRAPHQL_RESPONSE, EVENT_STREAM)
_QUERIES: Final = frozenset({OperationType.QUERY})
_CALLS: Final = _QUERIES | {OperationType.MUTATION}


_PAGE_HEADERS: Final = {"Content-Security-Policy": pages.content_security_policy(pages.GRAPHIQL)}


class GraphQLOverHTTP:
    """Queries and mutations by POST, queries by GET, subscriptions as server-sent events, and GraphiQL for browsers.

    A POST may bring several requests as an array: they are executed concurrently, and answered by an array in their
    order. Each counts as a request. No edition of the specification has that yet, so the answer is always
    `application/json` with 200.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        new_context: Callable[[], Context],
        documents: TrustedDocuments,
        stop: asyncio.Event,
        *,
        batch_limit: int,
        page: bool,
    ) -> None:
        """Args:
        schema: what is executed.
        new_context: for each request; a batch shares one, and thereby its loaders.
        documents: that are executed.
        stop: set when streams are to end.
        batch_limit: the most requests in one array.
        page: whether browsers are given GraphiQL.
        """
        self._schema = schema
        self._new_context = new_context
        self._documents = documents
        self._stop = stop
        self._batch_limit = batch_limit
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  ASGI
        is_page_asked = self._page and scope["method"] in SAFE_METHODS and b"query=" not in scope["query_string"]
        offers = (*_RESULTS, HTML) if is_page_asked else _RESULTS
        media_type = negotiated(header(scope, b"accept"), offers)
        try:
            response = await self._respond(media_type, scope, receive)
        except Refused as refused:
            media_type = GRAPHQL_RESPONSE if media_type == GRAPHQL_RESPONSE else JSON
            response = JSONResult(refusal(refused), refused.status, media_type, refused.headers)
        except OperationRefused as error:
            response = JSONResult(request_error(error), HTTPStatus.BAD_REQUEST, JSON)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, media_type: str, scope: Scope, receive: Receive) -> ASGIApp:
        if media_type == HTML:
            return HTMLResponse(pages.GRAPHIQL, headers=_PAGE_HEADERS)
        if not media_type:
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"accept {GRAPHQL_RESPONSE}")
        request = await read(scope, receive, self._batch_limit)
        context = self._new_context()
        context.operations = scope["operations"] = []  # which the middleware tells the log
        if isinstance(request, list):
            if len(request) > 1:  # of which one is counted already
                counted = context.rates.limit_for(request_context.current_request.get().principal, scope.get("client"))
                await context.rates.hit(*counted, len(request) - 1)
            results = await asyncio.gather(*(self._execute(each, context, _CALLS) for each in request))
            return JSONResult(results, HTTPStatus.OK, JSON, _cost(context))
        operations = _QUERIES if scope["method"] in SAFE_METHODS else _CALLS
        if media_type == EVENT_STREAM:
            return await self._stream(request, context, operations | {OperationType.SUBSCRIPTION})
        result = await self._execute(request, context, operations)
        return JSONResult(result, status_of(result, media_type), media_type, _cost(context))

    async def _execute(
        self, request: GraphRequest, context: Context, operations: Collection[OperationType]
    ) -> dict[str, Any]:
        try:
            result = await self._schema.execute(
                self._documents.text(request.query, request.document_id),
                variable_values=request.variables,
                context_value=context,
                operation_name=request.operation_name,
                operation_extensions=request.extensions,
                allowed_operation_types=operations,
            )
        except MissingQueryError:
            return request_error(GraphQLError("the query is empty"))
        except CannotGetOperationTypeError as error:
            return request_error(GraphQLError(error.as_http_error_reason()))
        except OperationRefused as error:
            return request_error(error)
        except InvalidOperationTypeError as error:
            if error.operation_type is OperationType.MUTATION:
                raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "send mutations by POST", {"Allow": "POST"}) from None
            message = f"a subscription is a stream: accept {EVENT_STREAM}, or use a WebSocket"
            return request_error(GraphQLError(message))
        return formatted(result)

    async def _stream(
        self, request: GraphRequest, context: Context, operations: Collection[OperationType]
    ) -> EventStream:
        results = await self._schema.stream(
            self._documents.text(request.query, request.document_id),
            variable_values=request.variables,
            context_value=context,
            operation_name=request.operation_name,
            operation_extensions=request.extensions,
            allowed_operation_types=operations,
        )
        return EventStream(results, self._stop)


def _cost(context: Context) -> dict[str, str]:
    """The headers that tell what was spent."""
    spent = context.spent
    return {"X-GraphQL-Cost-Estimated": str(spent.estimated), "X-GraphQL-Cost-Actual": str(spent.actual)}
