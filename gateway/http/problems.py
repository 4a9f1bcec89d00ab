"""Responses to refused requests: problems (RFC 9457), and GraphQL errors on the GraphQL endpoints."""

from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Scope

from gateway.graphql.transport.requests import GRAPHQL_RESPONSE, negotiate, read_header
from gateway.http.media_types import JSON
from openapi.models import Problem

_GRAPHQL_SUFFIX: Final = "/graphql"
"""End of the path of each GraphQL endpoint."""


def problem_response(problem: Problem, headers: dict[str, str]) -> Response:
    """Build the response of a problem."""
    content = problem.model_dump_json(by_alias=True, exclude_none=True)
    return Response(content, problem.status, headers, media_type="application/problem+json")


def response_to(scope: Scope, problem: Problem, headers: dict[str, str]) -> Response:
    """Build the response to a request that is refused before its route. Clients of GraphQL get a GraphQL error.

    Args:
        scope: ASGI scope of the request.
        problem: the problem.
        headers: further headers of the response.
    """
    if scope["type"] != "http" or not scope["path"].endswith(_GRAPHQL_SUFFIX):
        return problem_response(problem, headers)
    extensions: dict[str, Any] = {"code": problem.code, "requestId": problem.request_id}
    if "Retry-After" in headers:
        extensions["retryAfter"] = int(headers["Retry-After"])
    content = orjson.dumps({"errors": [{"message": problem.detail, "extensions": extensions}]})
    media_type = negotiate(read_header(scope, b"accept"), (JSON, GRAPHQL_RESPONSE)) or JSON
    headers = {**headers, "Vary": "Accept"}
    return Response(content, problem.status, headers, media_type=f"{media_type}; charset=utf-8")
