"""Route class of the REST API. Before FastAPI, it checks role, query parameters and content type, and parses JSON."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Scope

from gateway.http import strict_json
from gateway.http.media_types import is_utf8_json
from gateway.http.strict_json import MalformedJSONError
from gateway.policy import REST_RULES
from gateway.rest.starlette_internals import set_parsed_body
from kit.http.invalid_requests import MAX_PARAMETERS, QUERY, QueryParameters
from kit.rpc import request_context
from wallet.errors import FieldViolation, InvalidInput

_MAX_COLONS: Final = 256
"""Colons in a body: an upper bound of the fields of its objects. Each unknown field is an error, which takes 3 µs."""


class UnsupportedMediaTypeError(Exception):
    """The content type of a request body is not JSON in UTF-8."""


class GuardedRoute(APIRoute):
    """Route that checks the caller's role by the policy, refuses unknown query parameters, and parses strict JSON.

    These checks are not FastAPI dependencies, because each dependency costs more than the check itself.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:  # noqa: D102  FastAPI's
        self.strict_content_type = False  # FastAPI does not get the header
        handle = super().get_route_handler()
        rule = REST_RULES[" ".join((*(self.methods or ()), self.path))]  # each route has one method
        query = QueryParameters(self)

        async def check_and_handle(request: Request) -> Response:
            if not rule.is_public:
                rule.check(request_context.current_principal())
            if request.scope["query_string"]:
                check_query(query, request)
            if request.method == "POST":
                if not is_utf8_json(_take_content_type(request.scope)):
                    raise UnsupportedMediaTypeError
                if body := await request.body():
                    set_parsed_body(request, _parse_body(body))
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


def check_query(query: QueryParameters, request: Request) -> None:
    """Refuse unknown query parameters, repeated parameters that are not lists, and more than `MAX_PARAMETERS`.

    Raises:
        InvalidInput: a parameter is unknown or repeated, or there are too many. The violations do not quote unknown
            names.
    """
    if request.scope["query_string"].count(b"&") >= MAX_PARAMETERS:  # before they are parsed
        raise InvalidInput.for_field(QUERY, f"must have at most {MAX_PARAMETERS} parameters")
    errors = query.find_errors(name for name, _ in request.query_params.multi_items())
    if errors:
        raise InvalidInput(tuple(FieldViolation(*each) for each in errors.items()))


def _parse_body(body: bytes) -> Any:
    if body.count(b":") > _MAX_COLONS:
        raise InvalidInput.for_field("body", f"must have at most {_MAX_COLONS} fields")
    try:
        return strict_json.loads(body)
    except MalformedJSONError as error:
        raise InvalidInput.for_field("body", str(error)) from None
