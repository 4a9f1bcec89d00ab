"""Passwords and refresh tokens come out of the gateway nowhere but at identity: in no answer and in no log."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.rpc import converters
from kit.rpc.server import Service, grpc_server
from protos.wallet.identity.v1 import identity_pb2, identity_pb2_grpc
from stack.ports import HOST, free_ports
from subgraphs.identity.client import SERVICE
from subgraphs.identity.service.api.policy import POLICY
from tests.conftest import Keys
from tests.integration.gateway.gateway_process import Gateway, running
from tests.integration.gateway.logs import logs_since
from wallet.errors import InvalidCredentials, TooManyAttempts, UsernameTaken, WalletError

PASSWORD, TOKEN = "correct-horse-battery", "refresh-me-and-nobody-else"
HIDDEN = (PASSWORD, TOKEN, "horse", "nobody-else")
GOOD = {"username": "alice", "password": PASSWORD}
BAD: dict[str, Any] = {
    "password is a list": {"username": "alice", "password": [PASSWORD]},
    "password is an object": {"username": "alice", "password": {PASSWORD: PASSWORD}},
    "password is too long": {"username": "alice", "password": PASSWORD * 20},
    "password is no Unicode": {"username": "alice", "password": PASSWORD + "\ud800"},
    "password is the name": {"username": PASSWORD * 9, "password": "alice"},
    "password is a field": {"username": "alice", PASSWORD: "password"},
    "there is one more field": GOOD | {PASSWORD: TOKEN},
    "all is a text": PASSWORD,
    "all is a list": [PASSWORD, TOKEN],
    "a refresh token is a list": {"refreshToken": [TOKEN]},
    "a refresh token is too long": {"refreshToken": TOKEN * 100},
    "a refresh token is a field": {TOKEN: "refreshToken"},
}
MALFORMED = ['{"password": "%s"', '{"password": "%s}', "{password: %s}", "password=%s", '{"x": "%s\udcff"}']
ROUTES = ("register", "login", "refresh", "logout")


class FakeIdentity(identity_pb2_grpc.IdentityServiceServicer):
    """`answer` is what every call is answered, if it is an error; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.answer: WalletError | None = None
        self.asked: list[Any] = []

    def _note(self, request: Any) -> None:
        self.asked.append(request)
        if self.answer is not None:
            raise self.answer

    def _tokens(self) -> identity_pb2.Tokens:
        now = converters.time_to_proto(datetime(2026, 11, 21, tzinfo=UTC))
        return identity_pb2.Tokens(
            access_token="access", access_expires_at=now, refresh_token="next", refresh_expires_at=now
        )

    async def Register(self, request: Any, context: Any) -> identity_pb2.RegisterResponse:  # noqa: N802
        self._note(request)
        role = identity_pb2.ROLE_CUSTOMER
        return identity_pb2.RegisterResponse(user=identity_pb2.User(id="1", username=request.username, role=role))

    async def Authenticate(self, request: Any, context: Any) -> identity_pb2.AuthenticateResponse:  # noqa: N802
        self._note(request)
        return identity_pb2.AuthenticateResponse(tokens=self._tokens())

    async def Refresh(self, request: Any, context: Any) -> identity_pb2.RefreshResponse:  # noqa: N802
        self._note(request)
        return identity_pb2.RefreshResponse(tokens=self._tokens())

    async def Revoke(self, request: Any, context: Any) -> identity_pb2.RevokeResponse:  # noqa: N802
        self._note(request)
        return identity_pb2.RevokeResponse()

    async def GetUser(self, request: Any, context: Any) -> identity_pb2.GetUserResponse:  # noqa: N802
        return identity_pb2.GetUserResponse(user=identity_pb2.User(id=request.id, username="a"))  # of no role at all


@pytest.fixture(scope="module")
async def served(keys: Keys) -> AsyncIterator[tuple[str, FakeIdentity]]:
    target, identity = f"{HOST}:{free_ports(1)[0]}", FakeIdentity()  # type: ignore[abstract]  # the rest is not called
    register = Service(lambda server: identity_pb2_grpc.add_IdentityServiceServicer_to_server(identity, server), POLICY)
    async with grpc_server(target, keys.verifier(), {SERVICE: register}):
        yield target, identity


@pytest.fixture(scope="module")
async def door(
    served: tuple[str, FakeIdentity], keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    nobody = f"{HOST}:{free_ports(1)[0]}"
    folder: Path = tmp_path_factory.mktemp("door")
    async with running(keys, folder, bank=nobody, card=nobody, identity=served[0]) as gateway:
        yield gateway


@pytest.fixture
def identity(served: tuple[str, FakeIdentity]) -> FakeIdentity:
    served[1].__init__()  # type: ignore[misc]  # as new, at the address where it is known
    return served[1]


@pytest.fixture(autouse=True)
async def nothing_is_said(door: Gateway) -> AsyncIterator[None]:
    """Reads all that the gateway logs meanwhile, and what the test was about is not in it."""
    began = len(door.said)
    yield
    said = "\n".join(await logs_since(door, began))
    assert not [secret for secret in HIDDEN if secret in said]


async def ask(door: Gateway, route: str, body: str) -> httpx.Response:
    content = body.encode(errors="surrogateescape")
    return await door.http.post(f"/auth/{route}", content=content, headers={"Content-Type": "application/json"})


def hides(answer: httpx.Response) -> None:
    assert not [secret for secret in HIDDEN if secret in answer.text], answer.text


class TestAnswers:
    async def test_what_is_good_reaches_identity_and_it_alone(self, door: Gateway, identity: FakeIdentity) -> None:
        for route in ROUTES:
            body = GOOD if route in {"register", "login"} else {"refreshToken": TOKEN}
            answer = await ask(door, route, json.dumps(body))
            assert answer.is_success
            hides(answer)
        assert [getattr(each, "password", "") or each.refresh_token for each in identity.asked] == [
            PASSWORD,
            PASSWORD,
            TOKEN,
            TOKEN,
        ]

    async def test_no_tokens_are_kept_on_the_way(self, door: Gateway, identity: FakeIdentity) -> None:
        for route, body in (("login", GOOD), ("refresh", {"refreshToken": TOKEN})):
            assert (await ask(door, route, json.dumps(body))).headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
    async def test_what_is_bad_is_refused_without_a_word_of_it(
        self, door: Gateway, identity: FakeIdentity, bad: Any
    ) -> None:
        for route in ROUTES:
            refused = await ask(door, route, json.dumps(bad))
            assert refused.status_code == 400
            hides(refused)
        assert identity.asked == []

    @pytest.mark.parametrize("body", MALFORMED)
    async def test_what_is_no_json_is_refused_without_a_word_of_it(self, door: Gateway, body: str) -> None:
        refused = await ask(door, "login", body % PASSWORD)
        assert refused.status_code == 400
        hides(refused)

    async def test_what_identity_refuses_has_its_own_status(self, door: Gateway, identity: FakeIdentity) -> None:
        for answer, status in (
            (InvalidCredentials(), 401),
            (UsernameTaken("alice"), 409),
            (TooManyAttempts("7"), 429),
        ):
            identity.answer = answer
            route = "register" if status == 409 else "login"
            refused = await ask(door, route, json.dumps(GOOD))
            assert (refused.status_code, refused.json()["code"]) == (status, answer.reason)
            assert refused.headers.get("retry-after") == ("7" if status == 429 else None)
            hides(refused)

    async def test_a_defect_is_told_in_the_log_alone(self, door: Gateway, identity: FakeIdentity) -> None:
        began = len(door.said)
        async with httpx.AsyncClient(base_url=door.url, headers=door.http.headers, trust_env=False) as http:
            answer = await http.get("/me")
        assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
        assert sum("unexpected error" in line for line in await logs_since(door, began)) == 1
