"""Key sets of issuers: usable keys, files, URLs and reloads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from kit.auth import keys
from kit.auth.jwk import public_jwk
from kit.auth.keys import KeySet
from kit.http.server import http_server
from stack.ports import free_ports
from tests.unit.kit.auth.key_sets import build_key_set, list_kids
from tests.waiting import until
from wallet.errors import Unavailable

FIRST, SECOND = (public_jwk(Ed25519PrivateKey.generate().public_key()) for _ in range(2))


class Issuer:
    """ASGI application that serves a key set and counts the requests."""

    def __init__(self) -> None:
        self.response = Response(build_key_set(FIRST))
        self.requests = 0
        self.may_respond = asyncio.Event()
        self.may_respond.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        await self.may_respond.wait()
        await self.response(scope, receive, send)


@asynccontextmanager
async def serve(issuer: Issuer) -> AsyncIterator[str]:
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    async with http_server(issuer, listen, lifespan="off"):
        yield f"http://{listen}/jwks.json"


@pytest.fixture
def without_miss_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the key set for each unknown `kid`, without a minimum interval."""
    monkeypatch.setattr(keys, "_MISS_INTERVAL_SECONDS", 0.0)


class TestKeySetFromFile:
    async def test_changed_file_is_read_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys, "_FILE_INTERVAL_SECONDS", 0.01)
        monkeypatch.setattr(keys, "_MISS_INTERVAL_SECONDS", 0.0)
        file = tmp_path / "jwks.json"
        file.write_text(build_key_set(FIRST))
        async with KeySet.from_file(file) as key_set:
            first = await key_set.get_key(FIRST["kid"])
            file.write_text(build_key_set(SECOND))

            async def has_changed() -> bool:
                return list_kids(key_set) == [SECOND["kid"]]

            await until(has_changed)
            assert not key_set.is_current(first)

    async def test_unreadable_file_keeps_the_keys_and_each_failure_is_logged_once(self, tmp_path: Path) -> None:
        file = tmp_path / "jwks.json"
        file.write_text(build_key_set(FIRST))
        async with KeySet.from_file(file) as key_set:
            first = await key_set.get_key(FIRST["kid"])
            with capture_logs() as logs:
                file.write_text("{")
                await key_set.refresh()
                await key_set.refresh()
                file.unlink()
                await key_set.refresh()
            levels = [each["log_level"] for each in logs if each.get("source") == str(file)]
            assert levels == ["warning"] * 2
            assert key_set.is_current(first)


@pytest.mark.usefixtures("without_miss_interval")
class TestKeySetFromUrl:
    async def test_unknown_kid_causes_a_read(self) -> None:
        issuer = Issuer()
        async with serve(issuer) as url, KeySet.from_url(url) as key_set:
            first = await key_set.get_key(FIRST["kid"])
            issuer.response = Response(build_key_set(FIRST, SECOND))
            assert (await key_set.get_key(SECOND["kid"])).jwk == SECOND
            assert key_set.is_current(first)  # a read keeps the object of an unchanged key

    async def test_concurrent_callers_share_one_read(self) -> None:
        issuer = Issuer()
        async with serve(issuer) as url, KeySet.from_url(url) as key_set:
            await key_set.get_key(FIRST["kid"])
            requests_before = issuer.requests
            issuer.may_respond.clear()
            waiting = [asyncio.create_task(key_set.get_key(SECOND["kid"])) for _ in range(20)]
            await until(lambda: _is(issuer.requests > requests_before))
            issuer.response = Response(build_key_set(SECOND))
            issuer.may_respond.set()
            assert {key.jwk["kid"] for key in await asyncio.gather(*waiting)} == {SECOND["kid"]}
            assert issuer.requests == requests_before + 1

    async def test_missing_key_is_refused(self) -> None:
        issuer = Issuer()
        async with serve(issuer) as url, KeySet.from_url(url) as key_set:
            for kid in (SECOND["kid"], "", ["k"], 7):
                with pytest.raises(jwt.InvalidKeyError):
                    await key_set.get_key(kid)

    async def test_missing_kid_means_the_only_key_and_is_refused_after_a_second_key_is_published(self) -> None:
        issuer = Issuer()
        async with serve(issuer) as url, KeySet.from_url(url) as key_set:
            assert (await key_set.get_key(None)).jwk == FIRST
            issuer.response = Response(build_key_set(FIRST, SECOND))
            await key_set.refresh()
            with pytest.raises(jwt.InvalidKeyError):
                await key_set.get_key(None)
            issuer.response = Response(build_key_set(SECOND))
            assert (await key_set.get_key(None)).jwk == SECOND

    @pytest.mark.parametrize(
        "response",
        [Response("<html>"), Response(build_key_set()), Response("no", 500), Response(None, 302, {"location": "/"})],
        ids=["no JSON", "no keys", "an error", "a redirect"],
    )
    async def test_invalid_response_keeps_the_keys(self, response: Response) -> None:
        issuer = Issuer()
        async with serve(issuer) as url, KeySet.from_url(url) as key_set:
            first = await key_set.get_key(FIRST["kid"])
            issuer.response = response
            with capture_logs() as logs:
                await key_set.refresh()
            levels = [each["log_level"] for each in logs if each.get("source") == url]
            assert levels == ["warning"]
            assert key_set.is_current(first)

    async def test_key_set_that_was_never_read_raises_unavailable(self) -> None:
        async with KeySet.from_url(f"http://127.0.0.1:{free_ports(1)[0]}/") as key_set:
            assert key_set.jwks is None
            with pytest.raises(Unavailable, match="the issuer's keys"):
                await key_set.get_key(FIRST["kid"])

    async def test_key_set_is_read_as_soon_as_the_url_returns_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys, "_MISS_INTERVAL_SECONDS", 0.01)
        issuer = Issuer()
        good, issuer.response = issuer.response, Response("", 503)
        async with serve(issuer) as url, KeySet.from_url(url) as key_set:
            await until(lambda: _is(issuer.requests > 1))
            issuer.response = good
            await until(lambda: _is(key_set.jwks is not None))

    async def test_hanging_url_delays_a_call_up_to_the_time_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys, "_CALLER_TIMEOUT_SECONDS", 0.05)
        issuer = Issuer()
        issuer.may_respond.clear()
        async with serve(issuer) as url, KeySet.from_url(url) as key_set:
            async with asyncio.timeout(30):
                with pytest.raises(Unavailable):
                    await key_set.get_key(FIRST["kid"])
            issuer.may_respond.set()

    async def test_dripping_response_times_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def drip() -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0.01)

        issuer = Issuer()
        async with serve(issuer) as url, KeySet.from_url(url) as key_set:
            first = await key_set.get_key(FIRST["kid"])
            monkeypatch.setattr(keys, "_URL_TIMEOUT_SECONDS", 0.1)
            issuer.response = StreamingResponse(drip())
            async with asyncio.timeout(30):
                await key_set.refresh()
            assert key_set.is_current(first)


async def test_unknown_kids_cause_no_read_within_the_minimum_interval() -> None:
    issuer = Issuer()
    async with serve(issuer) as url, KeySet.from_url(url) as key_set:
        for number in range(10):
            with pytest.raises(jwt.InvalidKeyError):
                await key_set.get_key(f"made up {number}")
        assert issuer.requests == 1


async def _is(condition: bool) -> bool:
    return condition
