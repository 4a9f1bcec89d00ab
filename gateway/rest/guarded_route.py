"""Route class of the REST API. Before FastAPI, it checks role, query parameters and content type, and parses JSON."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Scope

from gateway.policy import REST_RULES
from gateway.rest.request_checks import check_query, read_json
from gateway.rest.starlette_internals import set_parsed_body
from kit.http.invalid_requests import QueryParameters
from kit.rpc import request_context


class GuardedRoute(APIRoute):
    """Route that checks the caller's role by the policy, refuses unknown query parameters, and parses strict JSON.

    These checks are not FastAPI dependencies, because each dependency costs more than the check itself.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:  # noqa: D102  FastAPI's
        self.strict_content_type = False  # FastAPI does not get the header
        handle = super().get_route_handler()
        rule = REST_RULES[" ".join((*(self.methods or ()), self.path))]  # each route has one method
        query = QueryParameters.of_route(self)
        has_body = self.body_field is not None

        async def check_and_handle(request: Request) -> Response:
            if not rule.is_public:
                rule.check(request_context.current_principal())
            check_query(query, request)
            if has_body:
                body = await read_json(request, _take_content_type(request.scope))
                set_parsed_body(request, body)
            return await handle(request)

        return check_and_handle


def _take_content_type(scope: Scope) -> str:
    """Return the content type, and remove it from the scope. Repeated headers are joined by commas.

    If the header stayed in the scope, FastAPI would parse it again with Python's email package, which takes 5 % of a
    transfer's time.
    """
    values, others = [], []
    for header in scope["headers"]:
        if header[0] == b"content-type":
            values.append(header[1])
        else:
            others.append(header)
    scope["headers"] = others
    return b",".join(values).decode("latin-1")
