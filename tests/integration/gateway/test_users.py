"""Passwords and refresh tokens reach identity only: no response and no log line contains them."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from kit.rpc import converters
from kit.rpc.server import Service, grpc_server
from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.identity.client import SERVICE
from subgraphs.identity.service.api.policy import POLICY
from tests.conftest import Keys
from tests.integration.gateway.gateway_process import Gateway, run_gateway_process
from tests.integration.gateway.logs import logs_since
from wallet.errors import InvalidCredentials, TooManyAttempts, Unavailable, UsernameTaken, WalletError, WrongPassword

PASSWORD, TOKEN = "correct-horse-battery", "refresh-me-and-nobody-else"
HIDDEN = (PASSWORD, PASSWORD[::-1], TOKEN, "horse", "nobody-else")
VALID = {"username": "alice", "password": PASSWORD}
INVALID_BODIES: dict[str, Any] = {
    "password is a list": {"username": "alice", "password": [PASSWORD]},
    "password is an object": {"username": "alice", "password": {PASSWORD: PASSWORD}},
    "password is too long": {"username": "alice", "password": PASSWORD * 20},
    "password is not valid Unicode": {"username": "alice", "password": PASSWORD + "\ud800"},
    "password is the name": {"username": PASSWORD * 9, "password": "alice"},
    "password is a field": {"username": "alice", PASSWORD: "password"},
    "there is one more field": VALID | {PASSWORD: TOKEN},
    "the body is a text": PASSWORD,
    "the body is a list": [PASSWORD, TOKEN],
    "a refresh token is a list": {"refreshToken": [TOKEN]},
    "a refresh token is too long": {"refreshToken": TOKEN * 100},
    "a refresh token is a field": {TOKEN: "refreshToken"},
    "a new password is too long": {"currentPassword": PASSWORD, "newPassword": PASSWORD * 20},
    "a current password is missing": {"newPassword": PASSWORD},
    "a current password is a list": {"currentPassword": [PASSWORD], "newPassword": PASSWORD},
}
MALFORMED_BODIES = ['{"password": "%s"', '{"password": "%s}', "{password: %s}", "password=%s", '{"x": "%s\udcff"}']
CHANGE = {"currentPassword": PASSWORD, "newPassword": PASSWORD[::-1]}
BODIES = {
    "register": VALID,
    "login": VALID,
    "refresh": {"refreshToken": TOKEN},
    "logout": {"refreshToken": TOKEN},
    "password": CHANGE,
}
ROUTES = tuple(BODIES)


class FakeIdentity(identity_pb2_grpc.IdentityServiceServicer):
    """Fake identity service.

    Attributes:
        error: raised by every call except `GetUser`, if set.
        requests: received requests except those of `GetUser`, in order.
    """

    def __init__(self) -> None:
        self.error: WalletError | None = None
        self.requests: list[Any] = []

    def _record(self, request: Any) -> None:
        self.requests.append(request)
        if self.error is not None:
            raise self.error

    def _tokens(self) -> identity_pb2.Tokens:
        now = converters.time_to_proto(datetime(2026, 11, 21, tzinfo=UTC))
        return identity_pb2.Tokens(
            access_token="access", access_expires_at=now, refresh_token="next", refresh_expires_at=now
        )

    async def Register(self, request: Any, context: Any) -> identity_pb2.RegisterResponse:  # noqa: N802
        self._record(request)
        role = identity_pb2.ROLE_CUSTOMER
        return identity_pb2.RegisterResponse(user=identity_pb2.User(id="1", username=request.username, role=role))

    async def Authenticate(self, request: Any, context: Any) -> identity_pb2.AuthenticateResponse:  # noqa: N802
        self._record(request)
        return identity_pb2.AuthenticateResponse(tokens=self._tokens())

    async def Refresh(self, request: Any, context: Any) -> identity_pb2.RefreshResponse:  # noqa: N802
        self._record(request)
        return identity_pb2.RefreshResponse(tokens=self._tokens())

    async def Revoke(self, request: Any, context: Any) -> identity_pb2.RevokeResponse:  # noqa: N802
        self._record(request)
        return identity_pb2.RevokeResponse()

    async def ChangePassword(self, request: Any, context: Any) -> identity_pb2.ChangePasswordResponse:  # noqa: N802
        self._record(request)
        return identity_pb2.ChangePasswordResponse()

    async def GetUser(self, request: Any, context: Any) -> identity_pb2.GetUserResponse:  # noqa: N802
        user = identity_pb2.User(id=request.id, username="a")  # invalid, because it has no role
        return identity_pb2.GetUserResponse(user=user)


@pytest.fixture(scope="module")
async def identity_server(keys: Keys) -> AsyncIterator[tuple[str, FakeIdentity]]:
    target, identity = f"{HOST}:{free_ports(1)[0]}", FakeIdentity()  # type: ignore[abstract]  # the tests do not call the missing methods
    register = Service(lambda server: identity_pb2_grpc.add_IdentityServiceServicer_to_server(identity, server), POLICY)
    async with grpc_server(target, keys.verifier(), {SERVICE: register}):
        yield target, identity


@pytest.fixture(scope="module")
async def gateway(
    identity_server: tuple[str, FakeIdentity], keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    unused = f"{HOST}:{free_ports(1)[0]}"
    folder: Path = tmp_path_factory.mktemp("gateway")
    async with run_gateway_process(keys, folder, bank=unused, card=unused, identity=identity_server[0]) as running:
        yield running


@pytest.fixture
def identity(identity_server: tuple[str, FakeIdentity]) -> FakeIdentity:
    identity_server[1].__init__()  # type: ignore[misc]  # resets the state of the running service
    return identity_server[1]


@pytest.fixture(autouse=True)
async def log_has_no_secrets(gateway: Gateway) -> AsyncIterator[None]:
    """Check the gateway's log lines after each test."""
    start = len(gateway.log_lines)
    yield
    log = "\n".join(await logs_since(gateway, start))
    assert not [secret for secret in HIDDEN if secret in log]


async def send(gateway: Gateway, route: str, body: str) -> httpx.Response:
    content = body.encode(errors="surrogateescape")
    return await gateway.http.post(f"/auth/{route}", content=content, headers={"Content-Type": "application/json"})


def assert_hidden(response: httpx.Response) -> None:
    assert not [secret for secret in HIDDEN if secret in response.text], response.text


class TestResponses:
    async def test_secrets_reach_identity_and_no_response(self, gateway: Gateway, identity: FakeIdentity) -> None:
        for route in ROUTES:
            response = await send(gateway, route, json.dumps(BODIES[route]))
            assert response.is_success
            assert_hidden(response)
        assert [MessageToDict(each) for each in identity.requests] == list(BODIES.values())

    async def test_password_change_needs_a_token_and_its_response_has_no_body(
        self, gateway: Gateway, identity: FakeIdentity
    ) -> None:
        async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as anonymous:
            refused = await anonymous.post("/auth/password", json=CHANGE)
        assert (refused.status_code, identity.requests) == (401, [])
        changed = await send(gateway, "password", json.dumps(CHANGE))
        assert (changed.status_code, changed.content) == (204, b"")

    async def test_token_responses_are_not_cacheable(self, gateway: Gateway, identity: FakeIdentity) -> None:
        for route, body in (("login", VALID), ("refresh", {"refreshToken": TOKEN})):
            assert (await send(gateway, route, json.dumps(body))).headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("bad", INVALID_BODIES.values(), ids=INVALID_BODIES)
    async def test_rejected_credentials_are_not_quoted(
        self, gateway: Gateway, identity: FakeIdentity, bad: Any
    ) -> None:
        for route in ROUTES:
            refused = await send(gateway, route, json.dumps(bad))
            assert refused.status_code == 400
            assert_hidden(refused)
        assert identity.requests == []

    @pytest.mark.parametrize(
        ("password", "message"),
        [("short", "must have at least 12 characters"), ("x" * 129, "must have at most 128 characters")],
    )
    async def test_length_of_a_rejected_password_is_not_reported(
        self, gateway: Gateway, password: str, message: str
    ) -> None:
        login = await send(gateway, "login", json.dumps(VALID | {"password": password}))
        assert login.json()["fields"] == [{"field": "password", "message": message}]
        change = await send(gateway, "password", json.dumps(CHANGE | {"newPassword": password}))
        assert change.json()["fields"] == [{"field": "newPassword", "message": message}]

    @pytest.mark.parametrize("body", MALFORMED_BODIES)
    async def test_rejected_malformed_body_is_not_quoted(self, gateway: Gateway, body: str) -> None:
        refused = await send(gateway, "login", body % PASSWORD)
        assert refused.status_code == 400
        assert_hidden(refused)

    async def test_identity_errors_have_their_http_status(self, gateway: Gateway, identity: FakeIdentity) -> None:
        for error, status in (
            (InvalidCredentials(), 401),
            (UsernameTaken("alice"), 409),
            (TooManyAttempts("7"), 429),
            (WrongPassword(), 400),
        ):
            identity.error = error
            route = {409: "register", 400: "password"}.get(status, "login")
            refused = await send(gateway, route, json.dumps(BODIES[route]))
            assert (refused.status_code, refused.json()["code"]) == (status, error.reason)
            assert refused.headers.get("retry-after") == ("7" if status == 429 else None)
            assert_hidden(refused)

    async def test_error_of_a_registration_with_an_unknown_outcome_names_the_next_step(
        self, gateway: Gateway, identity: FakeIdentity
    ) -> None:
        identity.error = Unavailable("identity")
        response = await send(gateway, "register", json.dumps(BODIES["register"]))
        next_step = "log in to find out whether the user was created; if not, register again"
        assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
        assert response.json()["detail"].endswith(f" is not available now; {next_step}")

    async def test_unexpected_error_is_logged_and_not_returned(self, gateway: Gateway, identity: FakeIdentity) -> None:
        start = len(gateway.log_lines)
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.http.headers, trust_env=False) as http:
            response = await http.get("/me")
        assert (response.status_code, response.json()["code"]) == (500, "INTERNAL")
        assert sum("unexpected error" in line for line in await logs_since(gateway, start)) == 1
