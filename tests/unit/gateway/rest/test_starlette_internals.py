"""The private attribute of Starlette through which FastAPI gets the parsed body."""

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI

from gateway.rest.guarded_route import GuardedRoute
from tests.unit.gateway.http.asgi import http_client


def fail_to_parse(*_: Any, **__: Any) -> None:
    raise AssertionError("Starlette parsed the body again: `request.json()` ignores `Request._json`")


async def test_body_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    router = APIRouter(route_class=GuardedRoute)

    @router.post("/auth/login")
    async def login(body: dict[str, str]) -> dict[str, str]:
        return body

    app = FastAPI()
    app.router.routes += router.routes
    monkeypatch.setattr("starlette.requests.json", SimpleNamespace(loads=fail_to_parse))
    async with http_client(app, raise_app_exceptions=True) as http:
        response = await http.post("/auth/login", json={"username": "alice"})
    assert response.json() == {"username": "alice"}
