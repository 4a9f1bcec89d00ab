"""Direct routes respond to a request as FastAPI's routes of the same contract do."""

from typing import Any
from uuid import UUID

import orjson
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match
from starlette.types import ASGIApp

from gateway.http.metrics import route_template
from gateway.http.rate_limits import RateLimitOptions
from gateway.rest.direct_route import DirectRoute, json_response
from gateway.rest.error_handlers import add_error_handlers
from gateway.rest.guarded_route import GuardedRoute
from kit.auth.principal import Role
from kit.http.routing import new_app
from openapi import models
from tests.conftest import Keys
from tests.unit.gateway.http.asgi import http_client, with_middleware

PATH = "/accounts/{accountId}/transfers"
ID = "01a1fc68-ad44-74c3-a6d6-42556a5c7775"
VALID = {"recipientId": ID, "amount": "10.00", "currency": "RUB"}


def respond(account_id: UUID, body: models.TransferRequest) -> models.TransferRequest:
    """Return the body, with the account of the path as the recipient."""
    return body.model_copy(update={"recipient_id": account_id})


def fastapi_app() -> FastAPI:
    router = APIRouter(route_class=GuardedRoute)

    @router.post(PATH, status_code=201, response_model_exclude_none=True)
    async def create_transfer(accountId: UUID, body: models.TransferRequest) -> models.TransferRequest:  # noqa: N803
        return respond(accountId, body)

    app = new_app()
    add_error_handlers(app)
    app.router.routes += router.routes
    return app


def direct_app() -> FastAPI:
    async def create_transfer(_: Request, accountId: UUID, body: models.TransferRequest) -> Response:  # noqa: N803
        return json_response(respond(accountId, body), 201)

    app = new_app()
    add_error_handlers(app)
    app.router.routes.append(DirectRoute("POST", PATH, create_transfer, body=models.TransferRequest))
    return app


@pytest.fixture(scope="module")
def apps(keys: Keys) -> list[ASGIApp]:
    return [with_middleware(app, keys, rates=RateLimitOptions(is_on=False)) for app in (fastapi_app(), direct_app())]


@pytest.fixture(scope="module")
def token(keys: Keys) -> str:
    return keys.user("alice")


async def responses(apps: list[ASGIApp], path: str, content: bytes, headers: dict[str, str]) -> list[Any]:
    """Send a request to both apps, and return status, content type and body of both responses."""
    found = []
    for app in apps:
        async with http_client(app) as http:
            response = await http.post(path, content=content, headers=headers)
        body = response.json()
        body.pop("requestId", None)
        found.append((response.status_code, response.headers.get("content-type"), body))
    return found


path_ids = st.sampled_from([ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", "7", "%20", "é"])
texts = st.sampled_from(["10.00", "1", "-1", "1e3", "", "RUB", "rub", ID, "x" * 300])
values = st.one_of(texts, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.just([]), st.just({}))
fields = st.sampled_from(["recipientId", "recipient_id", "amount", "currency", "note"])
objects = st.dictionaries(fields, values).flatmap(lambda changes: st.sampled_from([changes, VALID | changes]))


@given(path_id=path_ids, body=st.one_of(objects, values))
async def test_both_kinds_of_route_give_the_same_response(
    apps: list[ASGIApp], token: str, path_id: str, body: Any
) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    by_fastapi, direct = await responses(apps, PATH.format(accountId=path_id), orjson.dumps(body), headers)
    assert direct == by_fastapi


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        (PATH, b"", {}),
        (PATH, b"null", {}),
        (PATH, b"{", {}),
        (PATH, b'{"amount":1,"amount":1}', {}),
        (PATH, b"{}", {"Content-Type": "text/plain"}),
        (PATH, b"{}", {"Content-Type": "application/json; charset=utf-16"}),
        (PATH, orjson.dumps({f"x{number}": 1 for number in range(300)}), {}),
        (f"{PATH}?limit=1", orjson.dumps(VALID), {}),
        (f"{PATH}?utm_source=a", orjson.dumps(VALID), {}),
        (f"{PATH}/", orjson.dumps(VALID), {}),
    ],
)
async def test_both_kinds_of_route_refuse_the_same_requests(
    apps: list[ASGIApp], token: str, path: str, content: bytes, headers: dict[str, str]
) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | headers
    by_fastapi, direct = await responses(apps, path.replace("{accountId}", ID), content, headers)
    assert direct == by_fastapi


async def test_role_is_checked_before_the_rest_of_the_request(apps: list[ASGIApp], keys: Keys) -> None:
    operator = keys.user("olga", Role.OPERATOR)
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {operator}"}, 403)):
        by_fastapi, direct = await responses(apps, PATH.format(accountId="x"), b"{", headers)
        assert direct == by_fastapi
        assert direct[0] == status


async def test_direct_route_labels_the_request_with_its_path_template() -> None:
    (route,) = (each for each in direct_app().routes if isinstance(each, DirectRoute))
    scope = {"type": "http", "method": "POST", "path": PATH.format(accountId=ID), "headers": []}
    match, found = route.matches(scope)
    assert match is Match.FULL
    assert route_template({**scope, **found}) == PATH
