"""What all routes have in common."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import Header, Request, Response
from fastapi.routing import APIRoute

from gateway.http.strict_json import MalformedJSONError, loads
from gateway.policy import REST
from kit.rpc import request_context
from wallet.errors import InvalidInput

_IDEMPOTENCY_KEY: Final = r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"

IdempotencyKey = Annotated[
    str,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=_IDEMPOTENCY_KEY),
]


class UnsupportedMediaTypeError(Exception):
    """The body is not JSON."""


class Route(APIRoute):
    """A route for those whom the policy admits, and what they send is JSON.

    Not by FastAPI's dependencies: each of these takes longer than what it would look at.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:  # noqa: D102  FastAPI's
        handle = super().get_route_handler()
        rule = REST[" ".join((*(self.methods or ()), self.path))]  # one method each

        async def checked(request: Request) -> Response:
            if not rule.is_public:
                rule.check(request_context.current_principal())
            if request.method == "POST":
                if not _is_json(request.headers.get("content-type", "")):
                    raise UnsupportedMediaTypeError
                if body := await request.body():
                    request._json = _decoded(body)  # noqa: SLF001  what FastAPI is going to ask for
            return await handle(request)

        return checked


def _decoded(body: bytes) -> Any:
    try:
        return loads(body)
    except MalformedJSONError as error:
        raise InvalidInput.for_field("body", str(error)) from None


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"
