"""Maximum size of request bodies."""

from typing import Any

import pytest

from gateway.http.body_limit import BodyLimit
from kit.rpc import request_context
from tests.unit.gateway.http.asgi import echo, http_client

LIMIT = 10


@pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
async def test_only_a_body_above_the_limit_is_rejected_with_413(size: int, status: int, *, is_chunked: bool) -> None:
    async def chunks(text: bytes) -> Any:
        for start in range(0, len(text), 4):
            yield text[start : start + 4]

    request_context.current_request.set(request_context.RequestContext("the-request"))
    body = b"x" * size
    async with http_client(BodyLimit(echo, LIMIT)) as http:
        response = await http.post("/", content=chunks(body) if is_chunked else body)
    assert response.status_code == status
