"""Responses in the format of RFC 9457, `application/problem+json`."""

from starlette.responses import Response

from openapi.models import Problem


def problem_response(problem: Problem, headers: dict[str, str]) -> Response:
    """Build the response of a problem."""
    content = problem.model_dump_json(by_alias=True, exclude_none=True)
    return Response(content, problem.status, headers, media_type="application/problem+json")
