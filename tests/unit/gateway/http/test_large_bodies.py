"""Large bodies: who may send them, and how many at a time. Batches: what they count as."""

import asyncio
import gzip
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from gateway.http.batch_charge import charge_batch
from gateway.http.large_bodies import LARGE_BODY_LIMIT_BYTES, has_too_many_values
from gateway.http.rate_limits import RateLimiter, RateLimitOptions
from gateway.http.work_limits import WorkLimits
from kit.auth.principal import Principal, Role
from kit.rpc import request_context
from kit.runtime.fair_limit import FairLimit
from tests.conftest import Keys
from tests.unit.gateway.http.asgi import echo, http_client, with_middleware

PATH = "/transfers/batch"
ALICE = Principal("issuer", "alice", is_service=False, expires_at=2.0**33, roles=frozenset({Role.CUSTOMER}))


@pytest.mark.parametrize(
    ("path", "is_verified", "size", "status"),
    [
        (PATH, True, 1_001, 200),
        (PATH, True, LARGE_BODY_LIMIT_BYTES, 200),
        (PATH, True, LARGE_BODY_LIMIT_BYTES + 1, 413),
        (PATH, False, 1_000, 200),
        (PATH, False, 1_001, 413),
        ("/other", True, 1_001, 413),
    ],
)
async def test_only_verified_callers_send_large_bodies_and_only_on_some_paths(
    keys: Keys, path: str, size: int, status: int, *, is_verified: bool
) -> None:
    app = with_middleware(echo, keys, large_body_paths={PATH}, rates=RateLimitOptions(is_on=False))
    headers = {"Authorization": f"Bearer {keys.user('alice')}"} if is_verified else {}
    async with http_client(app) as http:
        response = await http.post(path, content=b"x" * size, headers=headers)
    assert response.status_code == status


async def test_address_has_a_few_large_bodies_at_a_time(keys: Keys) -> None:
    running, proceed, started = 0, asyncio.Event(), asyncio.Queue[int]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal running
        running += 1
        started.put_nowait(running)
        await proceed.wait()
        running -= 1
        await echo(scope, receive, send)

    work = WorkLimits(large_bodies=FairLimit(2))
    guarded = with_middleware(app, keys, large_body_paths={PATH}, work=work, timeout_seconds=30)
    headers = {"Authorization": f"Bearer {keys.user('alice')}"}
    async with http_client(guarded) as http, asyncio.TaskGroup() as requests:
        sent = [
            requests.create_task(http.post(PATH, content=b"x" * size, headers=headers))
            for size in (1_001, 1_001, 1_001, 10)
        ]
        assert [await started.get() for _ in range(3)] == [1, 2, 3]  # two large ones and the small one
        assert started.empty()
        proceed.set()
    assert [(await each).status_code for each in sent] == [200] * 4
    assert len(work.large_bodies) == 0


async def test_place_of_a_large_body_is_free_when_the_response_starts(keys: Keys) -> None:
    end, started = asyncio.Event(), asyncio.Queue[None]()

    async def stream(_: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        started.put_nowait(None)
        await end.wait()
        await send({"type": "http.response.body", "body": b""})

    work = WorkLimits(large_bodies=FairLimit(1))
    guarded = with_middleware(stream, keys, large_body_paths={PATH}, work=work, timeout_seconds=30)
    headers = {"Authorization": f"Bearer {keys.user('alice')}"}
    async with http_client(guarded) as http, asyncio.TaskGroup() as requests:
        sent = [requests.create_task(http.post(PATH, content=b"x" * 1_001, headers=headers)) for _ in range(3)]
        for _ in sent:
            await started.get()
        assert len(work.large_bodies) == 0
        end.set()
    assert [(await each).status_code for each in sent] == [200] * 3


@pytest.mark.parametrize("size", [70_000, 2_000_000])
async def test_small_encoded_body_has_the_usual_limit(keys: Keys, size: int) -> None:
    app = with_middleware(echo, keys, body_limit_bytes=64 * 1024, large_body_paths={PATH})
    headers = {"Authorization": f"Bearer {keys.user('alice')}", "Content-Encoding": "gzip"}
    small, large = gzip.compress(b"x" * size), gzip.compress(b"x" * size, 0)
    async with http_client(app) as http:
        assert len(small) < 4_096 < len(large)
        assert (await http.post(PATH, content=small, headers=headers)).status_code == 413
        expected = 200 if size < LARGE_BODY_LIMIT_BYTES else 413
        assert (await http.post(PATH, content=large, headers=headers)).status_code == expected


@pytest.mark.parametrize(
    ("body", "has_too_many"),
    [
        (b"[" + b"0," * 30_000 + b"0]" + b" " * 10_000, False),
        (b"[" + b"0," * 33_000 + b"0]", True),
        (b'{"a":' * 33_000, True),
        (b"," * 33_000, False),  # within the limit of all bodies
    ],
)
def test_values_of_large_bodies_are_limited(body: bytes, *, has_too_many: bool) -> None:
    assert has_too_many_values(body) is has_too_many


class TestCharge:
    @pytest.fixture
    def caller(self) -> Any:
        reset = request_context.current_request.set(request_context.RequestContext("the-request", principal=ALICE))
        yield ALICE
        request_context.current_request.reset(reset)

    async def test_batch_counts_as_its_transfers_and_is_paced_as_a_tenth(self, caller: Principal) -> None:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        limiter = RateLimiter(RateLimitOptions(requests="6000/minute"), sleep=sleep)
        await charge_batch(limiter, 1)
        assert pauses == []
        await charge_batch(limiter, 1_000)
        status = await limiter.status(limiter.requests, caller.scope)
        assert status is not None
        assert status.remaining == 6_000 - 999
        assert pauses == [pytest.approx((100 - 32) / 300, abs=0.01)]
