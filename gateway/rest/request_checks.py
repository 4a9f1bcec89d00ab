"""Checks of a request that FastAPI does not make: the query parameters, the content type, and strict JSON."""

from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import build_problem
from gateway.http import strict_json
from gateway.http.large_bodies import has_too_many_values
from gateway.http.media_types import is_utf8_json
from gateway.http.problems import problem_response
from gateway.http.strict_json import MalformedJSONError
from kit.http.invalid_requests import MAX_PARAMETERS, QUERY, QueryParameters
from wallet.errors import FieldViolation, InvalidInput

_MAX_COLONS: Final = 256
"""Colons in a body: an upper bound of the fields of its objects. Each unknown field is an error, which takes 3 µs."""


class UnsupportedMediaTypeError(Exception):
    """The content type of a request body is not JSON in UTF-8."""


def unsupported_media_type() -> Response:
    """Return the response to a request with such a body."""
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    return problem_response(build_problem(status, "UNSUPPORTED_MEDIA_TYPE", "send application/json in UTF-8"), {})


def check_query(query: QueryParameters, request: Request) -> None:
    """Refuse unknown query parameters, repeated parameters that are not lists, and more than `MAX_PARAMETERS`.

    Raises:
        InvalidInput: a parameter is unknown or repeated, or there are too many. The violations do not quote unknown
            names.
    """
    if not request.scope["query_string"]:
        return
    if request.scope["query_string"].count(b"&") >= MAX_PARAMETERS:  # before they are parsed
        raise InvalidInput.for_field(QUERY, f"must have at most {MAX_PARAMETERS} parameters")
    errors = query.find_errors(name for name, _ in request.query_params.multi_items())
    if errors:
        raise InvalidInput(tuple(FieldViolation(*each) for each in errors.items()))


async def read_json(request: Request, content_type: str) -> Any:
    """Return the value of a JSON body; None if the body is empty.

    Args:
        request: the request.
        content_type: its content type. Repeated headers are joined by commas.

    Raises:
        UnsupportedMediaTypeError: the content type is not JSON in UTF-8.
        InvalidInput: the body is not valid JSON (`strict_json`), or has too many fields.
    """
    body = await read_json_text(request, content_type)
    if body.count(b":") > _MAX_COLONS:
        raise InvalidInput.for_field("body", f"must have at most {_MAX_COLONS} fields")
    return parse_json(body)


async def read_json_text(request: Request, content_type: str) -> bytes:
    """Return the text of a JSON body, which may be empty.

    Raises:
        UnsupportedMediaTypeError: the content type is not JSON in UTF-8.
        InvalidInput: a large body has too many values.
    """
    if not is_utf8_json(content_type):
        raise UnsupportedMediaTypeError
    body = await request.body()
    if has_too_many_values(body):
        raise InvalidInput.for_field("body", "has too many values: send fewer transfers")
    return body


def parse_json(body: bytes) -> Any:
    """Return the value of a JSON body; None if the body is empty.

    Raises:
        InvalidInput: the body is not valid JSON (`strict_json`).
    """
    try:
        return strict_json.loads(body) if body else None
    except MalformedJSONError as error:
        raise InvalidInput.for_field("body", str(error)) from None
