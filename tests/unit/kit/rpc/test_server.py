"""gRPC server: authentication, policies, streams, errors, logs, metrics and health."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from structlog.typing import EventDict

from kit.auth.access import PUBLIC_ACCESS, READ_ACCESS, AccessPolicy, allow_roles, allow_services
from kit.auth.principal import Role
from kit.rpc import request_context, server
from kit.rpc.server import Service, grpc_server
from kit.rpc.status import error_from_status
from kit.runtime.addresses import ListenError
from stack.ports import free_ports
from tests.conftest import USERS, Keys
from tests.tools import needs_ipv6
from tests.unit.kit.rpc.echo import POLICY, SERVICE, Stub, registration, serving
from tests.waiting import until
from wallet.errors import InternalError, InvalidInput, PermissionDenied, Unauthenticated, Unavailable, WalletError

DENIED = (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied())

entered = asyncio.Event()
"""Set when a hanging call has started."""


async def say(text: str) -> str:
    """Handle a call: return a text or raise an error, depending on the request."""
    match text:
        case "who":
            return request_context.current_principal().subject
        case "id":
            return request_context.current_request.get().request_id
        case "time":
            return str(request_context.current_request.get().remaining(1000))
        case "trace":
            request = request_context.current_request.get()
            return f"{request.request_id} {request.trace.trace_id}"
        case "unavailable":
            raise Unavailable("its database")
        case "refuse":
            raise InvalidInput.for_field("text", "must be friendlier")
        case "break":
            raise RuntimeError("the password is s3cret")
        case "hang":
            entered.set()
            await asyncio.Event().wait()
    return text


@pytest.fixture(scope="module")
async def target(keys: Keys) -> AsyncIterator[str]:
    async with serving(say, keys.verifier()) as target:
        yield target


@pytest.fixture(scope="module")
async def stub(target: str) -> AsyncIterator[Stub]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield Stub(channel)


def bearer(token: str, **more: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"), *((name.replace("_", "-"), value) for name, value in more.items()))


def almost_expired(keys: Keys) -> str:
    """Return a token that has expired, and that is accepted for 1.5 s more: clocks may differ by 5 s."""
    return keys.user("alice", lifetime_seconds=1.5 - 5)


async def read_error(call: grpc.aio.UnaryUnaryCall[StringValue, StringValue]) -> tuple[grpc.StatusCode, WalletError]:
    """Return the status code and the error of a failed call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # it has the attributes that are read
    assert status is not None
    return caught.value.code(), error_from_status(status)


def count_calls(method: str, code: str) -> float:
    labels = {"method": f"/{SERVICE}/{method}", "code": code}
    return REGISTRY.get_sample_value("wallet_rpc_duration_seconds_count", labels) or 0.0


class TestCallers:
    async def test_call_has_the_principal_of_its_token(self, stub: Stub, keys: Keys) -> None:
        response = await stub.Say(StringValue(value="who"), metadata=bearer(keys.user("alice")))
        assert response.value == "alice"

    async def test_concurrent_calls_have_their_own_principals(self, stub: Stub, keys: Keys) -> None:
        names = [f"user-{n}" for n in range(50)]
        calls = [stub.Say(StringValue(value="who"), metadata=bearer(keys.user(name))) for name in names]
        assert [response.value for response in await asyncio.gather(*calls)] == names

    async def test_call_without_a_token_does_not_reach_the_servicer(self, stub: Stub) -> None:
        code, error = await read_error(stub.Say(StringValue(value="break")))
        assert (code, error) == (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated())

    @pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer nonsense", "Basic YTpi", ""])
    async def test_invalid_token_is_refused(self, stub: Stub, header: str) -> None:
        code, error = await read_error(stub.Say(StringValue(value="who"), metadata=(("authorization", header),)))
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert isinstance(error, Unauthenticated)

    @pytest.mark.parametrize("prefix", ["bearer ", "BEARER ", "Bearer   "])
    async def test_scheme_may_have_any_case(self, stub: Stub, keys: Keys, prefix: str) -> None:
        metadata = (("authorization", f"{prefix}{keys.user('alice')}"),)
        assert (await stub.Say(StringValue(value="who"), metadata=metadata)).value == "alice"

    @pytest.mark.parametrize("prefix", ["", "Bearer", "Token "])
    async def test_token_without_the_scheme_is_refused_and_not_quoted(
        self, stub: Stub, keys: Keys, prefix: str
    ) -> None:
        token = keys.user("alice")
        code, error = await read_error(
            stub.Say(StringValue(value="who"), metadata=(("authorization", f"{prefix}{token}"),))
        )
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert "write `Bearer` before the token" in error.message
        assert token not in error.message

    async def test_several_tokens_are_refused(self, stub: Stub, keys: Keys) -> None:
        metadata = bearer(keys.user("alice"))
        joined = (("authorization", ", ".join(value for _, value in metadata * 2)),)
        for several in (metadata * 2, joined):
            code, error = await read_error(stub.Say(StringValue(value="who"), metadata=several))
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert error.message.startswith("Authorization: must be sent once")

    async def test_other_repeated_metadata_is_accepted(self, stub: Stub, keys: Keys) -> None:
        metadata = (*bearer(keys.user("alice")), ("x-extra", "1"), ("x-extra", "2"))
        assert (await stub.Say(StringValue(value="who"), metadata=metadata)).value == "alice"

    async def test_expired_token_is_refused(self, stub: Stub, keys: Keys) -> None:
        expired = keys.user("alice", lifetime_seconds=-60)
        _, error = await read_error(stub.Say(StringValue(value="who"), metadata=bearer(expired)))
        assert error == Unauthenticated.for_token("the token has expired; get a new one")

    async def test_stream_without_a_token_is_refused(self, stub: Stub) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.Count(StringValue(value="3")):
                pass
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


class TestPolicy:
    async def test_call_without_an_allowed_role_does_not_reach_the_servicer(self, keys: Keys) -> None:
        async with (
            serving(
                say, keys.verifier(), policy={"Say": allow_roles(Role.ADMIN), "Count": allow_services("card")}
            ) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            stub, broken = Stub(channel), StringValue(value="break")
            for token in (keys.user("alice"), keys.signers[USERS].sign("nobody", 60), keys.service("card")):
                assert await read_error(stub.Say(broken, metadata=bearer(token))) == DENIED
            assert await stub.Say(StringValue(value="who"), metadata=bearer(keys.user("root", Role.ADMIN)))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stub.Count(StringValue(value="3"), metadata=bearer(keys.user("root", Role.ADMIN))):
                    pass
            assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
            counted = stub.Count(StringValue(value="3"), metadata=bearer(keys.service("card")))
            assert [number.value async for number in counted] == ["0", "1", "2"]

    async def test_public_method_does_not_verify_the_token(self, keys: Keys) -> None:
        async with (
            serving(say, keys.verifier(), policy={"Say": PUBLIC_ACCESS, "Count": PUBLIC_ACCESS}) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            stub = Stub(channel)
            for metadata in ((), bearer("nonsense"), bearer(keys.user("alice", lifetime_seconds=-60))):
                assert (await stub.Say(StringValue(value="hello"), metadata=metadata)).value == "hello"
                _, error = await read_error(stub.Say(StringValue(value="who"), metadata=metadata))
                assert error == Unauthenticated()  # a public method has no principal

    @pytest.mark.parametrize(
        ("policy", "message"),
        [
            ({"Say": READ_ACCESS}, "methods of test.Echo without an access rule: Count"),
            ({"Say": READ_ACCESS, "Count": READ_ACCESS, "Shout": READ_ACCESS}, "that test.Echo does not have: Shout"),
        ],
    )
    async def test_policy_that_differs_from_the_service_is_an_error_at_the_start(
        self, keys: Keys, policy: AccessPolicy, message: str
    ) -> None:
        with pytest.raises(RuntimeError, match=message):
            async with serving(say, keys.verifier(), policy=policy):
                pass


class TestStreams:
    async def test_stream_ends_when_its_token_expires(self, keys: Keys) -> None:
        async def hold(text: str) -> str:
            await asyncio.Event().wait()
            return text

        async with serving(hold, keys.verifier()) as target, grpc.aio.insecure_channel(target) as channel:
            stream = Stub(channel).Count(StringValue(value="9"), metadata=bearer(almost_expired(keys)))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async with asyncio.timeout(5):
                    await stream.read()
        status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # as above
        assert status is not None
        assert error_from_status(status) == Unauthenticated.for_token("the token has expired; get a new one")

    async def test_busy_stream_ends_when_its_token_expires(self, keys: Keys) -> None:
        async with serving(say, keys.verifier()) as target, grpc.aio.insecure_channel(target) as channel:
            stream = Stub(channel).Count(StringValue(value=str(10**9)), metadata=bearer(almost_expired(keys)))
            async with asyncio.timeout(10):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    async for _ in stream:
                        pass
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED

    async def test_public_stream_without_a_token_runs_to_its_end(self, keys: Keys) -> None:
        async with (
            serving(say, keys.verifier(), policy={"Say": PUBLIC_ACCESS, "Count": PUBLIC_ACCESS}) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            assert [number.value async for number in Stub(channel).Count(StringValue(value="2"))] == ["0", "1"]


class TestErrors:
    async def test_error_arrives_with_its_details(self, stub: Stub, keys: Keys) -> None:
        code, error = await read_error(stub.Say(StringValue(value="refuse"), metadata=bearer(keys.user("alice"))))
        assert (code, error) == (grpc.StatusCode.INVALID_ARGUMENT, InvalidInput.for_field("text", "must be friendlier"))

    async def test_defect_is_an_internal_error(self, stub: Stub, keys: Keys) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Say(StringValue(value="break"), metadata=bearer(keys.user("alice")))
        status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # as above
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert status is not None
        assert error_from_status(status) == InternalError()
        text = f"{caught.value!r} {status} {caught.value.trailing_metadata()} {caught.value.debug_error_string()}"
        assert "s3cret" not in text
        assert "RuntimeError" not in text

    async def test_stream_raises_its_error_after_its_responses(self, stub: Stub, keys: Keys) -> None:
        metadata = bearer(keys.user("alice"))
        counted = [number.value async for number in stub.Count(StringValue(value="3"), metadata=metadata)]
        assert counted == ["0", "1", "2"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.Count(StringValue(value="refuse"), metadata=metadata):
                pass
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    async def test_unknown_method_is_unimplemented(self, target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel, "test.Nothing").Say(StringValue())
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert caught.value.details() == "the service has no such method: see its proto file"

    async def test_request_of_another_type_is_invalid_input(self, target: str, keys: Keys) -> None:
        metadata = bearer(keys.user("alice"))
        async with grpc.aio.insecure_channel(target) as channel:
            say: Any = channel.unary_unary(f"/{SERVICE}/Say")
            count: Any = channel.unary_stream(f"/{SERVICE}/Count")
            for call in (say(b"\xff", metadata=metadata), count(b"\xff", metadata=metadata).read()):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert caught.value.details() == "request: must be a message of the method's request type"


class TestLog:
    async def test_server_error_is_logged_and_a_refusal_is_not(self, stub: Stub, keys: Keys) -> None:
        metadata = bearer(keys.user("alice"), x_request_id="order-7")
        with capture_logs(processors=[add_call]) as events:
            for text in ("friendly", "refuse", "unavailable"):
                with suppress(grpc.aio.AioRpcError):
                    await stub.Say(StringValue(value=text), metadata=metadata)
        (event,) = [each for each in events if each["event"] == "slow or failed call"]
        assert 0 <= event.pop("ms") < 10_000
        assert event == {
            "event": "slow or failed call",
            "log_level": "warning",
            "method": f"/{SERVICE}/Say",
            "code": "UNAVAILABLE",
            "request_id": "order-7",
            "caller": "alice",
        }

    async def test_slow_call_is_logged_and_a_slow_stream_is_not(
        self, stub: Stub, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "_SLOW_CALL_SECONDS", 0)
        with capture_logs() as events:
            await stub.Say(StringValue(value="friendly"), metadata=bearer(keys.user("alice")))
            assert [each async for each in stub.Count(StringValue(value="3"), metadata=bearer(keys.user("alice")))]
        calls = [(each["method"], each["code"]) for each in events if each["event"] == "slow or failed call"]
        assert calls == [(f"/{SERVICE}/Say", "OK")]

    async def test_call_without_a_trace_starts_one(self, stub: Stub, keys: Keys) -> None:
        response = await stub.Say(StringValue(value="trace"), metadata=bearer(keys.user("alice")))
        request_id, trace_id = response.value.split()
        assert request_id == trace_id


def add_call(_: Any, __: str, event: EventDict) -> EventDict:
    """Add the fields that `kit.telemetry.logs` adds to each event of a call.

    Events outside of a call are not changed. For example, a service that a session fixture runs in this process may log
    at the same time.
    """
    current = request_context.current_request.get(None)
    if current is None or current.principal is None:
        return event
    return {**event, "request_id": current.request_id, "caller": current.principal.subject}


class TestRequestContext:
    async def test_request_id_of_the_caller_is_kept(self, stub: Stub, keys: Keys) -> None:
        metadata = bearer(keys.user("alice"), x_request_id="order-7:1")
        assert (await stub.Say(StringValue(value="id"), metadata=metadata)).value == "order-7:1"

    async def test_unsafe_request_id_is_replaced(self, stub: Stub, keys: Keys) -> None:
        metadata = bearer(keys.user("alice"), x_request_id="x" * 1000)
        assert len((await stub.Say(StringValue(value="id"), metadata=metadata)).value) == 32

    async def test_deadline_of_the_caller_is_kept(self, stub: Stub, keys: Keys) -> None:
        metadata = bearer(keys.user("alice"))
        left = await stub.Say(StringValue(value="time"), metadata=metadata, timeout=20)
        unlimited = await stub.Say(StringValue(value="time"), metadata=metadata)
        assert float(left.value) == pytest.approx(20, abs=5)
        assert float(unlimited.value) == 1000


class TestMetrics:
    @pytest.mark.parametrize(("text", "code"), [("hello", "OK"), ("refuse", "INVALID_ARGUMENT"), ("break", "INTERNAL")])
    async def test_call_is_counted_by_its_status_code(self, stub: Stub, keys: Keys, text: str, code: str) -> None:
        before = count_calls("Say", code)
        await asyncio.wait([asyncio.ensure_future(stub.Say(StringValue(value=text), metadata=bearer(keys.user("a"))))])
        assert count_calls("Say", code) == before + 1

    async def test_call_that_the_client_cancels_is_counted_as_cancelled(self, stub: Stub, keys: Keys) -> None:
        before = count_calls("Say", "CANCELLED")
        entered.clear()
        call = stub.Say(StringValue(value="hang"), metadata=bearer(keys.user("alice")))
        await entered.wait()
        call.cancel()

        async def counted() -> bool:
            return count_calls("Say", "CANCELLED") == before + 1

        await until(counted)


class TestHealthAndReflection:
    async def test_health_check_needs_no_token(self, target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            await until(partial(is_serving, health, ""))
            assert await is_serving(health, SERVICE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health.Check(health_pb2.HealthCheckRequest(service="test.Nothing"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    async def test_health_of_the_server_is_its_readiness(self, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        is_available = asyncio.Event()

        async def check() -> None:
            if not is_available.is_set():
                raise Unavailable("its database")

        monkeypatch.setattr(server, "_READINESS_INTERVAL_SECONDS", 0.01)
        async with (
            serving(say, keys.verifier(), checks={"database": check}) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            health: Any = health_pb2_grpc.HealthStub(channel)
            for _ in range(2):
                assert not await is_serving(health, "")
                assert await is_serving(health, SERVICE)
                is_available.set()
                await until(partial(is_serving, health, ""))
                is_available.clear()

                async def is_reported() -> bool:
                    return not await is_serving(health, "")

                await until(is_reported)

    async def test_health_is_not_serving_before_shutdown(self, keys: Keys) -> None:
        server = AsyncExitStack()
        target = await server.enter_async_context(serving(say, keys.verifier()))
        async with grpc.aio.insecure_channel(target) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            ending = asyncio.create_task(server.aclose())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            await ending

    async def test_reflection_lists_the_services_without_a_token(self, target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            (response,) = await _reflection(channel, reflection_pb2.ServerReflectionRequest(list_services="*"))
        names = {service.name for service in response.list_services_response.service}
        reflection = {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
        assert names == {SERVICE, "grpc.health.v1.Health", *reflection}

    @pytest.mark.parametrize("symbol", ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"])
    async def test_reflection_has_the_messages_of_a_service(self, target: str, symbol: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            (response,) = await _reflection(
                channel, reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
            )
        assert response.file_descriptor_response.file_descriptor_proto

    async def test_both_versions_of_reflection_return_the_same(self, target: str) -> None:
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        async with grpc.aio.insecure_channel(target) as channel:
            call = channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            assert [response async for response in call(iter([request]))] == await _reflection(channel, request)


class TestServer:
    async def test_port_in_use_is_an_error(self, target: str, keys: Keys) -> None:
        with pytest.raises(ListenError, match="in use"):
            async with grpc_server(target, keys.verifier(), {SERVICE: Service(registration(say), POLICY)}):
                pass

    @needs_ipv6
    async def test_server_listens_on_an_ipv6_address(self, keys: Keys) -> None:
        address = f"[::1]:{free_ports(1)[0]}"
        services = {SERVICE: Service(registration(say), POLICY)}
        async with grpc_server(address, keys.verifier(), services), grpc.aio.insecure_channel(address) as channel:
            async with asyncio.timeout(5):
                await channel.channel_ready()

    async def test_call_in_progress_finishes_during_shutdown(self, keys: Keys) -> None:
        begun, leave = asyncio.Event(), asyncio.Event()

        async def slow(text: str) -> str:
            begun.set()
            await leave.wait()
            return text

        server = AsyncExitStack()
        target = await server.enter_async_context(serving(slow, keys.verifier()))
        async with grpc.aio.insecure_channel(target) as channel:
            call = Stub(channel).Say(StringValue(value="done"), metadata=bearer(keys.user("alice")))
            await begun.wait()
            ending = asyncio.create_task(server.aclose())
            asyncio.get_running_loop().call_later(0.1, leave.set)
            assert (await call).value == "done"
            await ending


async def is_serving(health: Any, name: str) -> bool:
    response = await health.Check(health_pb2.HealthCheckRequest(service=name))
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


async def _reflection(
    channel: grpc.aio.Channel, *requests: reflection_pb2.ServerReflectionRequest
) -> list[reflection_pb2.ServerReflectionResponse]:
    """Call server reflection as grpcurl does."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # both kinds of channel work
    return [response async for response in stub.ServerReflectionInfo(iter(requests))]


class TestConnections:
    async def test_server_announces_the_limit_of_concurrent_streams(self, target: str) -> None:
        reader, writer = await open_http2(target)
        settings = await read_settings(reader)
        writer.close()
        assert settings[3] == server.MAX_STREAMS

    @pytest.mark.parametrize("option", ["grpc.server_handshake_timeout_ms", "grpc.max_connection_idle_ms"])
    async def test_connection_without_a_handshake_or_a_call_is_closed(
        self, keys: Keys, option: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert option in dict(server._OPTIONS)
        monkeypatch.setattr(server, "_OPTIONS", tuple((dict(server._OPTIONS) | {option: 200}).items()))
        async with serving(say, keys.verifier()) as target:
            reader, writer = await open_http2(target, preface=HTTP2_PREFACE if "idle" in option else b"")
            try:
                async with asyncio.timeout(5):
                    await reader.read()  # until the server closes the connection
            finally:
                writer.close()


HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


async def open_http2(target: str, preface: bytes = HTTP2_PREFACE) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send a preface, by default that of HTTP/2 with an empty SETTINGS frame."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(preface)
    return reader, writer


async def read_settings(reader: asyncio.StreamReader) -> dict[int, int]:
    """Read the server's first frame, its SETTINGS."""
    async with asyncio.timeout(10):
        head = await reader.readexactly(9)
        assert head[3] == 4
        payload = await reader.readexactly(int.from_bytes(head[:3]))
    pairs = [payload[start : start + 6] for start in range(0, len(payload), 6)]
    return {int.from_bytes(pair[:2]): int.from_bytes(pair[2:]) for pair in pairs}
