"""gRPC client: channels, deadlines, limits, circuit breakers, streams and traces."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health
from prometheus_client import REGISTRY

from kit.auth.principal import Principal
from kit.rpc import channel, circuit_breaker, request_context
from kit.rpc.channel import ClientLimits, RpcClient, open_channel, reconnecting_stream
from kit.rpc.circuit_breaker import STATES
from kit.rpc.request_context import RequestContext, current_request
from kit.runtime.settings import TracingSettings
from kit.telemetry import tracing
from kit.telemetry.tracing import TraceContext
from stack.ports import free_ports
from tests.clock import ManualClock
from tests.collector import run_collector
from tests.conftest import Keys
from tests.unit.kit.rpc.echo import SERVICE, Stub, registration, serving
from tests.waiting import until
from wallet.errors import (
    AccountNotFound,
    DeadlineExceeded,
    InternalError,
    RateLimited,
    ResourceExhausted,
    SubscriberTooSlow,
    Unauthenticated,
    Unavailable,
    WalletError,
)


@contextmanager
def current_call(
    token: str | None,
    *,
    request_id: str = "test",
    seconds: float | None = None,
    trace: TraceContext | None = None,
    principal: Principal | None = None,
) -> Iterator[None]:
    """Run the block as the handler of a request with this token and deadline."""
    deadline = None if seconds is None else time.monotonic() + seconds
    reset = current_request.set(RequestContext(request_id, principal, token, deadline, trace or TraceContext.new()))
    try:
        yield
    finally:
        current_request.reset(reset)


async def call_say(stub: Stub, text: str, cap_seconds: float = 5) -> str:
    calls = RpcClient("the echo", ClientLimits(timeout_seconds=cap_seconds))
    return (await calls.unary(stub.Say, StringValue(value=text))).value


def count_to(stub: Stub, text: str) -> AsyncGenerator[StringValue, None]:
    return RpcClient("the echo", ClientLimits()).stream(stub.Count, StringValue(value=text))


async def say(text: str) -> str:
    """Handle a call at the far service, to which the near service forwards calls."""
    match text:
        case "refuse":
            raise AccountNotFound("a1")
        case "unavailable":
            raise Unavailable("its database")
        case "hang":
            await asyncio.Event().wait()
        case "long":
            return "x" * 17 * 1024 * 1024
        case "trace":
            return repr(current_request.get().trace)
        case "count_to":
            return "1000000"
    context = current_request.get()
    return f"{context.request_id} {request_context.current_principal().subject} {context.remaining(1000)}"


class CountingServer:
    """Server that counts its calls, with a settable health status."""

    def __init__(self) -> None:
        self.calls = 0
        self._server = grpc.aio.server()
        self._health = grpc_health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        registration(self._count)(self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator["CountingServer"]:
        counting = cls()
        await counting.set_health(health_pb2.HealthCheckResponse.SERVING)
        await counting._server.start()
        yield counting
        await counting.stop()

    async def set_health(self, status: Any) -> None:
        await self._health.set(SERVICE, status)

    async def stop(self) -> None:
        await self._server.stop(None)

    async def _count(self, _: str) -> str:
        self.calls += 1
        return "there"


@pytest.fixture(scope="module")
async def far(keys: Keys) -> AsyncIterator[str]:
    async with serving(say, keys.verifier()) as target:
        yield target


@pytest.fixture(scope="module")
async def far_stub(far: str) -> AsyncIterator[Stub]:
    async with open_channel(far, SERVICE, ()) as opened:
        yield Stub(opened)


@pytest.fixture(scope="module")
async def near_stub(far_stub: Stub, keys: Keys) -> AsyncIterator[Stub]:
    """Serve a service that forwards each call to the far service for the same caller; yield a stub of it."""

    async def forward(text: str) -> str:
        return await call_say(far_stub, text, cap_seconds=30)

    async with serving(forward, keys.verifier()) as target, open_channel(target, SERVICE, ()) as opened:
        yield Stub(opened)


class TestTraces:
    @pytest.mark.parametrize("flags", [0, 1, 3])
    async def test_trace_context_is_propagated_without_an_exporter(
        self, near_stub: Stub, keys: Keys, flags: int
    ) -> None:
        trace = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", flags, "a=b,c=d")
        with current_call(keys.user("alice"), trace=trace):
            assert await call_say(near_stub, "trace") == repr(trace)

    async def test_each_hop_has_a_client_and_a_server_span(self, near_stub: Stub, keys: Keys) -> None:
        trace = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
        with run_collector() as collector:
            settings = TracingSettings.model_validate({"otlp_endpoint": collector.endpoint})
            with tracing.export_spans("test", settings), current_call(keys.user("alice"), trace=trace):
                for text in ("trace", "refuse", "unavailable"):
                    with suppress(WalletError):
                        await call_say(near_stub, text)
        by_start = sorted(collector.spans, key=lambda each: each.span.start_time_unix_nano)
        assert [each.kind for each in by_start] == ["CLIENT", "SERVER"] * 6
        assert {each.name for each in by_start} == {f"{SERVICE}/Say"}
        for outer, inner in pairwise(by_start):
            assert inner.parent in {outer.context, (trace.trace_id, trace.span_id)}
        codes = [each.attributes.get("rpc.response.status_code") for each in by_start]
        assert codes == [None, "OK", None, "OK", *["NOT_FOUND"] * 4, *["UNAVAILABLE"] * 4]
        errors = [each.is_error for each in by_start]
        assert errors == [False] * 4 + [True, False] * 2 + [True] * 4  # a refusal is an error of the client span only

    async def test_stream_has_one_client_and_one_server_span(self, far_stub: Stub, keys: Keys) -> None:
        trace = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
        with run_collector() as collector:
            settings = TracingSettings.model_validate({"otlp_endpoint": collector.endpoint})
            with tracing.export_spans("test", settings), current_call(keys.user("alice"), trace=trace):
                counted = count_to(far_stub, "count_to")
                async with aclosing(counted):
                    assert await anext(counted)

                async def has_ended() -> bool:
                    ended = REGISTRY.get_sample_value(
                        "wallet_rpc_duration_seconds_count", {"method": f"/{SERVICE}/Count", "code": "CANCELLED"}
                    )
                    return bool(ended)

                await until(has_ended)
        client, server = sorted(collector.spans, key=lambda each: each.kind)
        assert (client.kind, client.name, server.kind, server.name) == (
            "CLIENT",
            f"{SERVICE}/Count",
            "SERVER",
            f"{SERVICE}/Count",
        )
        assert (client.is_error, server.is_error, server.parent) == (False, False, client.context)
        assert server.attributes["rpc.response.status_code"] == "CANCELLED"


class TestTwoHops:
    async def test_request_context_arrives_after_two_hops(self, near_stub: Stub, keys: Keys) -> None:
        with current_call(keys.user("alice"), request_id="order-7", seconds=3):
            request_id, subject, remaining = (await call_say(near_stub, "who")).split()
        assert (request_id, subject) == ("order-7", "alice")
        assert float(remaining) == pytest.approx(3, abs=1)

    async def test_call_has_the_smallest_time_out_of_its_hops(self, near_stub: Stub, keys: Keys) -> None:
        with current_call(keys.user("alice"), seconds=100):
            _, _, remaining = (await call_say(near_stub, "who", cap_seconds=50)).split()
        assert float(remaining) == pytest.approx(30, abs=3)

    async def test_error_is_passed_back_over_two_hops(self, near_stub: Stub, keys: Keys) -> None:
        with current_call(keys.user("alice")), pytest.raises(AccountNotFound, match="a1"):
            await call_say(near_stub, "refuse")

    async def test_hanging_service_times_out_at_the_callers_deadline(self, near_stub: Stub, keys: Keys) -> None:
        async with asyncio.timeout(20):  # less than the near service's time-out of 30 seconds
            with current_call(keys.user("alice"), seconds=0.3), pytest.raises(DeadlineExceeded, match="the echo"):
                await call_say(near_stub, "hang", cap_seconds=3600)

    async def test_call_without_a_token_is_unauthenticated(self, near_stub: Stub) -> None:
        with current_call(None), pytest.raises(Unauthenticated):
            await call_say(near_stub, "who")


class TestStream:
    async def test_stream_yields_responses_and_raises_its_error(self, keys: Keys) -> None:
        async def echo(text: str) -> str:
            return await say(text) if text == "refuse" else text

        async with serving(echo, keys.verifier()) as target, open_channel(target, SERVICE, ()) as opened:
            stub = Stub(opened)
            with current_call(keys.user("alice")):
                three = count_to(stub, "3")
                assert [number.value async for number in three] == ["0", "1", "2"]
                with pytest.raises(AccountNotFound):
                    await anext(count_to(stub, "refuse"))

    async def test_closed_stream_cancels_the_call(self, keys: Keys) -> None:
        async def echo(text: str) -> str:
            return text

        async with serving(echo, keys.verifier()) as target, open_channel(target, SERVICE, ()) as opened:
            with current_call(keys.user("alice")):
                endless = count_to(Stub(opened), "1000000000")
                assert (await anext(endless)).value == "0"
                await endless.aclose()


class TestUnavailable:
    async def test_dead_target_is_unavailable_at_once(self) -> None:
        async with open_channel(f"127.0.0.1:{free_ports(1)[0]}", SERVICE, ()) as opened:
            with current_call("token"), pytest.raises(Unavailable, match="the echo is not available now"):
                await call_say(Stub(opened), "who", cap_seconds=3600)  # longer than this test may take

    async def test_read_is_retried(self, keys: Keys) -> None:
        attempts = []

        async def fail_twice(text: str) -> str:
            attempts.append(text)
            if len(attempts) < 3:
                raise Unavailable("its database")
            return "there"

        async with serving(fail_twice, keys.verifier()) as target, open_channel(target, SERVICE, ["Say"]) as opened:
            with current_call(keys.user("alice")):
                assert await call_say(Stub(opened), "a read") == "there"
        assert attempts == ["a read"] * 3

    async def test_mutation_is_not_retried(self, far: str, keys: Keys) -> None:
        attempts = []

        async def fail_always(text: str) -> str:
            attempts.append(text)
            raise Unavailable("its database")

        async with serving(fail_always, keys.verifier()) as target, open_channel(target, SERVICE, ["Count"]) as opened:
            with current_call(keys.user("alice")), pytest.raises(Unavailable, match="its database"):
                await call_say(Stub(opened), "a mutation")
        assert attempts == ["a mutation"]

    async def test_restarted_service_is_reconnected(self, keys: Keys) -> None:
        async def respond(_: str) -> str:
            return "there"

        target = f"127.0.0.1:{free_ports(1)[0]}"
        async with open_channel(target, SERVICE, ()) as opened:
            with current_call(keys.user("alice")):
                async with serving(respond, keys.verifier(), target):
                    assert await call_say(Stub(opened), "first") == "there"
                with pytest.raises(Unavailable):
                    await call_say(Stub(opened), "while unavailable")
                async with serving(respond, keys.verifier(), target):

                    async def is_reconnected() -> bool:
                        with suppress(Unavailable):
                            return await call_say(Stub(opened), "again") == "there"
                        return False

                    await until(is_reconnected, within=5)


class TestSeveralAddresses:
    @pytest.fixture
    async def servers(self) -> AsyncIterator[list[CountingServer]]:
        async with CountingServer.serving() as one, CountingServer.serving() as other:
            yield [one, other]

    @pytest.fixture
    async def stub(self, servers: list[CountingServer]) -> AsyncIterator[Stub]:
        """Stub of a channel that is connected to both servers."""
        addresses = ",".join(server.target for server in servers)
        async with open_channel(f"ipv4:{addresses}", SERVICE, ["Say"]) as opened:
            stub = Stub(opened)
            with current_call("token"):

                async def are_connected() -> bool:
                    await call_say(stub, "who")
                    return all(server.calls for server in servers)

                await until(are_connected)
                yield stub

    async def test_addresses_share_the_calls(self, servers: list[CountingServer], stub: Stub) -> None:
        assert await self.count_calls(servers, stub) == [10, 10]

    async def test_dead_address_gets_no_calls(self, servers: list[CountingServer], stub: Stub) -> None:
        await servers[0].stop()
        assert await self.count_calls(servers, stub) == [0, 20]

    async def test_unhealthy_address_gets_no_calls(self, servers: list[CountingServer], stub: Stub) -> None:
        await servers[0].set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await until(lambda: self.calls_are(servers, stub, [0, 20]))
        await servers[0].set_health(health_pb2.HealthCheckResponse.SERVING)
        await until(lambda: self.calls_are(servers, stub, [10, 10]))

    async def test_service_without_a_healthy_address_is_unavailable(
        self, servers: list[CountingServer], stub: Stub
    ) -> None:
        for server in servers:
            await server.set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

        async def is_unavailable() -> bool:
            try:
                return not await call_say(stub, "who")
            except Unavailable:
                return True

        await until(is_unavailable)

    async def count_calls(self, servers: list[CountingServer], stub: Stub) -> list[int]:
        before = [server.calls for server in servers]
        for _ in range(20):
            await call_say(stub, "who")
        return [server.calls - then for server, then in zip(servers, before, strict=True)]

    async def calls_are(self, servers: list[CountingServer], stub: Stub, counts: list[int]) -> bool:
        return await self.count_calls(servers, stub) == counts


class TestDeadline:
    async def test_silent_target_exceeds_the_deadline(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with open_channel(f"127.0.0.1:{silent.getsockname()[1]}", SERVICE, ["Say"]) as opened:
                with current_call("token"), pytest.raises(DeadlineExceeded, match="the echo did not respond in time"):
                    await call_say(Stub(opened), "who", cap_seconds=0.3)

    async def test_method_that_an_older_service_lacks_is_none(self, far_stub: Stub, keys: Keys) -> None:
        calls, older = RpcClient("the echo", ClientLimits()), far_stub.Lacking
        with current_call(keys.user("alice")):
            assert await calls.unary_if_known(older, StringValue(value="who")) is None
            assert await calls.unary_if_known(far_stub.Say, StringValue(value="who"))
            with pytest.raises(AccountNotFound):
                await calls.unary_if_known(far_stub.Say, StringValue(value="refuse"))

    async def test_call_after_its_deadline_is_not_sent(self, far_stub: Stub, keys: Keys) -> None:
        with current_call(keys.user("alice"), seconds=-1), pytest.raises(DeadlineExceeded):
            await call_say(far_stub, "who")


class TestLimits:
    """Calls to a service that hangs."""

    @pytest.fixture
    async def stub(self, keys: Keys) -> AsyncIterator[Stub]:
        async def respond(text: str) -> str:
            return "there" if text == "who" else await say(text)

        with current_call(keys.user("alice")):
            async with serving(respond, keys.verifier()) as target, open_channel(target, SERVICE, ()) as opened:
                yield Stub(opened)

    @staticmethod
    async def call(calls: RpcClient, stub: Stub, text: str) -> str:
        return (await calls.unary(stub.Say, StringValue(value=text))).value

    async def call_as(self, user: str, calls: RpcClient, stub: Stub, keys: Keys, text: str) -> str:
        principal = Principal("test", user, is_service=False, expires_at=0)
        with current_call(keys.user(user), principal=principal):
            return await self.call(calls, stub, text)

    async def test_time_outs_of_several_callers_open_the_circuit(
        self, stub: Stub, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = ManualClock()
        monkeypatch.setattr(circuit_breaker, "time", clock)
        limits = ClientLimits(timeout_seconds=0.5, circuit_failures=2, circuit_open_seconds=60)
        calls = RpcClient("the echo", limits)
        before = count_refused("circuit")
        for user in ("alice", "bob"):
            with pytest.raises(DeadlineExceeded):
                await self.call_as(user, calls, stub, keys, "hang")
        with pytest.raises(Unavailable, match="the echo is not available now"):
            await self.call(calls, stub, "who")
        assert count_refused("circuit") == before + 1
        assert circuit_state() == "opened"
        clock.advance(60)
        calls._limits = replace(limits, timeout_seconds=60)  # the probe must not time out
        assert await self.call(calls, stub, "who") == "there"
        assert circuit_state() == "closed"

    async def test_time_outs_of_one_caller_do_not_open_the_circuit_for_others(self, stub: Stub, keys: Keys) -> None:
        limits = ClientLimits(timeout_seconds=0.1, circuit_failures=2, circuit_open_seconds=3_600)
        calls = RpcClient("the echo", limits)
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                await self.call_as("alice", calls, stub, keys, "hang")
        with pytest.raises(Unavailable):
            await self.call_as("alice", calls, stub, keys, "who")
        assert circuit_state() == "closed"
        calls._limits = replace(limits, timeout_seconds=60)  # bob's call must not time out
        assert await self.call_as("bob", calls, stub, keys, "who") == "there"

    async def test_time_outs_of_one_network_do_not_open_the_circuit_for_others(self, stub: Stub, keys: Keys) -> None:
        calls = RpcClient("the echo", ClientLimits(timeout_seconds=0.1, circuit_failures=2, circuit_open_seconds=3_600))
        for address in ("2001:db8::1", "2001:db8::2"):
            reset = current_request.set(RequestContext("test", token=keys.user("alice"), client_address=address))
            with pytest.raises(DeadlineExceeded):
                await self.call(calls, stub, "hang")
            current_request.reset(reset)
        assert circuit_state() == "closed"

    async def test_time_out_of_a_call_with_a_short_deadline_does_not_count(self, stub: Stub, keys: Keys) -> None:
        calls = RpcClient("the echo", ClientLimits(timeout_seconds=5, circuit_failures=1))
        with current_call(keys.user("alice"), seconds=0.1), pytest.raises(DeadlineExceeded):
            await self.call(calls, stub, "hang")
        assert await self.call(calls, stub, "who") == "there"

    async def test_call_above_the_limit_is_refused(self, stub: Stub) -> None:
        calls = RpcClient("the echo", ClientLimits(max_calls=3))
        before = count_refused("limit")
        hanging = [asyncio.create_task(self.call(calls, stub, "hang")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await self.call(calls, stub, "who")
        assert count_refused("limit") == before + 1
        others = RpcClient("another", ClientLimits(max_calls=3))
        assert await self.call(others, stub, "who") == "there"
        hanging[0].cancel()
        await asyncio.wait(hanging[:1])
        assert await self.call(calls, stub, "who") == "there"
        for each in hanging:
            each.cancel()
        await asyncio.wait(hanging)

    async def test_call_above_the_callers_limit_is_refused(self, stub: Stub, keys: Keys) -> None:
        calls = RpcClient("the echo", ClientLimits(max_calls=3, max_per_caller=2))
        before = count_refused("caller")

        hanging = [asyncio.create_task(self.call_as("alice", calls, stub, keys, "hang")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await self.call_as("alice", calls, stub, keys, "who")
        assert count_refused("caller") == before + 1
        assert await self.call_as("bob", calls, stub, keys, "who") == "there"
        for each in hanging:
            each.cancel()
        await asyncio.wait(hanging)
        assert await self.call_as("alice", calls, stub, keys, "who") == "there"


def count_refused(reason: str) -> float:
    labels = {"method": f"{SERVICE}/Say", "reason": reason}
    return REGISTRY.get_sample_value("wallet_calls_refused_total", labels) or 0


def circuit_state() -> str:
    name, method = "wallet_call_circuit", f"{SERVICE}/Say"
    (current_state,) = [each for each in STATES if REGISTRY.get_sample_value(name, {"method": method, name: each})]
    return current_state


class TestRetryBudget:
    async def test_retries_stop_when_all_calls_fail(self, keys: Keys) -> None:
        attempts = 0

        async def fail_always(_: str) -> str:
            nonlocal attempts
            attempts += 1
            raise Unavailable("its database")

        async with serving(fail_always, keys.verifier()) as target, open_channel(target, SERVICE, ["Say"]) as opened:
            stub = Stub(opened)

            async def fail() -> None:
                with current_call(keys.user("alice")), pytest.raises(Unavailable):
                    await call_say(stub, "a read", cap_seconds=60)

            await asyncio.gather(*(fail() for _ in range(60)))
            attempts = 0
            await asyncio.gather(*(fail() for _ in range(20)))
        assert attempts == 20


class TestInvalidResponses:
    async def test_too_large_response_is_resource_exhausted(self, far_stub: Stub, keys: Keys) -> None:
        with current_call(keys.user("alice")), pytest.raises(ResourceExhausted):
            await call_say(far_stub, "long")

    async def test_unknown_method_is_an_internal_error(self, far: str, keys: Keys) -> None:
        async with open_channel(far, SERVICE, ()) as opened:
            with current_call(keys.user("alice")), pytest.raises(InternalError):
                await call_say(Stub(opened, "test.Other"), "who")


class TestReconnectingStream:
    async def collect_values(self, *streams: list[int | WalletError]) -> list[int]:
        """Return the values of streams that are opened one after the other."""
        left = list(streams)

        async def open_stream() -> AsyncGenerator[int, None]:
            for value in left.pop(0):
                if isinstance(value, WalletError):
                    raise value
                yield value

        async with aclosing(reconnecting_stream(open_stream)) as values:
            return [value async for value in values]

    async def test_broken_stream_is_reopened(self) -> None:
        unavailable = Unavailable("the echo")
        assert await self.collect_values([1, 2, unavailable], [unavailable], [3]) == [1, 2, 3]

    @pytest.mark.parametrize(
        "error", [DeadlineExceeded("the echo"), ResourceExhausted(), RateLimited("calls at once", "1")]
    )
    async def test_stream_is_reopened_when_the_service_is_late_or_overloaded(
        self, error: WalletError, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(channel, "_RECONNECT_FIRST_DELAY_SECONDS", 0.001)
        assert await self.collect_values([1, error], [error], [2]) == [1, 2]

    async def test_finished_stream_is_not_reopened(self) -> None:
        assert await self.collect_values([1], [2]) == [1]

    @pytest.mark.parametrize("error", [AccountNotFound("a1"), SubscriberTooSlow()])
    async def test_permanent_error_is_raised(self, error: WalletError) -> None:
        with pytest.raises(type(error)):
            await self.collect_values([1, error], [2])

    async def test_unavailable_is_raised_after_the_time_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = ManualClock()

        async def sleep(_seconds: float) -> None:
            clock.advance(channel._RECONNECT_TIMEOUT_SECONDS / 15)

        loop = SimpleNamespace(time=clock.monotonic)
        # Only the module under test gets the manual clock; the event loop keeps its own.
        stand_in = SimpleNamespace(**vars(asyncio) | {"sleep": sleep, "get_running_loop": lambda: loop})
        monkeypatch.setattr(channel, "asyncio", stand_in)
        unavailable = Unavailable("the echo")
        # An outage lasts more than half of the time-out. Each value restarts the time-out.
        outage: list[list[int | WalletError]] = [[unavailable]] * 8
        with pytest.raises(Unavailable):
            await self.collect_values(*outage * 12)
        assert await self.collect_values(*outage, [1, unavailable], *outage, [2]) == [1, 2]
