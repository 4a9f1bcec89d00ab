"""Routes of the most frequent requests, without FastAPI (ADR 48).

FastAPI takes a fifth of the gateway's time for a transfer: for its own middleware, for the parameters, and for the
response. These routes only have ids in the path and perhaps a JSON body, so little is left to do.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from gateway.http.media_types import JSON
from gateway.policy import REST_RULES
from gateway.rest.invalid_fields import invalid_input
from gateway.rest.request_checks import UnsupportedMediaTypeError, check_query, read_json, unsupported_media_type
from kit.http.invalid_requests import QueryParameters
from kit.rpc import request_context

_UUID: Final = TypeAdapter(UUID)
_NO_PARAMETERS: Final = QueryParameters()
_MISSING_BODY: Final = {"type": "missing", "loc": ("body",)}


class DirectRoute(Route):
    """Route that checks a request as a `GuardedRoute` does, and calls a function with the ids and the body.

    Attributes:
        body: model of the request body; None if the route takes none.
    """

    def __init__(
        self, method: str, path: str, handle: Callable[..., Awaitable[Response]], *, body: type[BaseModel] | None = None
    ) -> None:
        """Args:
        method: HTTP method. A GET route also handles HEAD.
        path: path of the contract. Its parameters are UUIDs.
        handle: gets the request, each id of the path as an argument with the parameter's name in the path, and the
            value of the body as `body` if the route takes one.
        body: model of the request body. A function without one may read the body itself, by `request_checks`.
        """
        endpoint = _Endpoint(f"{method} {path}", handle, body)
        super().__init__(path, endpoint, methods=[method])
        self.body = body

    def matches(self, scope: Scope) -> tuple[Match, Scope]:  # noqa: D102  Starlette's
        match, found = super().matches(scope)
        found["route"] = self  # its path is a label in metrics
        return match, found


def json_response(value: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return the response with a model of the contract as JSON. Fields without a value are left out."""
    content = value.__pydantic_serializer__.to_json(value, by_alias=True, exclude_none=True)
    return Response(content, status, headers, media_type=JSON)


class _Endpoint:
    """ASGI app of one route."""

    def __init__(
        self, operation: str, handle: Callable[..., Awaitable[Response]], body: type[BaseModel] | None
    ) -> None:
        self._rule = REST_RULES[operation]
        self._handle = handle
        self._body = None if body is None else TypeAdapter(body)
        self._model = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._rule.check(request_context.current_principal())
        request = Request(scope, receive)
        check_query(_NO_PARAMETERS, request)
        try:
            response = await self._handle(request, **await self._read(request))
        except UnsupportedMediaTypeError:
            response = unsupported_media_type()
        await response(scope, receive, send)

    async def _read(self, request: Request) -> dict[str, Any]:
        """Return the ids and the body of a request.

        Raises:
            InvalidInput: with all errors of the request.
        """
        errors: list[Mapping[str, Any]] = []
        arguments: dict[str, Any] = {}
        if self._body is not None:
            value = await read_json(request, ",".join(request.headers.getlist("content-type")))
        for name, text in request.scope["path_params"].items():
            try:
                arguments[name] = _UUID.validate_python(text)
            except ValidationError as error:
                errors += ({**each, "loc": ("path", name)} for each in error.errors())
        if self._body is not None:
            if value is None and not await request.body():
                errors.append(_MISSING_BODY)
            else:
                try:
                    arguments["body"] = self._body.validate_python(value, from_attributes=True)
                except ValidationError as error:
                    errors += ({**each, "loc": ("body", *each["loc"])} for each in error.errors())
        if errors:
            raise invalid_input(errors, self._model)
        return arguments
