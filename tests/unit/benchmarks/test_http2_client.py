import time
from collections.abc import AsyncIterator, Iterator
from itertools import repeat

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from benchmarks.http2_client import call_repeatedly, header_block
from benchmarks.load_generator import CallError
from kit.rpc import request_context
from stack.ports import free_ports
from tests.conftest import Keys
from tests.unit.kit.rpc.echo import SERVICE, serving
from wallet.errors import InvalidInput

received: list[tuple[str, str]] = []


async def echo(text: str) -> str:
    """Record the caller and the text, and refuse the text "refuse"."""
    if text == "refuse":
        raise InvalidInput.for_field("text", "must be friendlier")
    received.append((request_context.current_principal().subject, text))
    return text


@pytest.fixture(scope="module")
async def target(keys: Keys) -> AsyncIterator[str]:
    async with serving(echo, keys.verifier()) as target:
        yield target


def requests(target: str, token: str, text: str) -> Iterator[tuple[bytes, bytes]]:
    return repeat((header_block(target, f"/{SERVICE}/Say", 5, token), StringValue(value=text).SerializeToString()))


class TestCallRepeatedly:
    async def test_grpc_server_receives_every_call_with_its_caller(self, target: str, keys: Keys) -> None:
        received.clear()
        deadline = time.monotonic() + 1
        calls = await call_repeatedly(target, requests(target, keys.user("alice"), "hello"), 16, deadline)
        assert len(calls) >= 16
        assert received == [("alice", "hello")] * len(calls)
        assert all(call.started <= call.ended for call in calls)
        assert sum(call.ended >= deadline for call in calls) <= 16, "a call started after the deadline"

    async def test_calls_larger_than_the_initial_window_succeed(self, target: str, keys: Keys) -> None:
        text = "x" * 8_000
        calls = await call_repeatedly(target, requests(target, keys.user("alice"), text), 64, time.monotonic() + 1)
        assert len(calls) >= 64

    async def test_refused_call_raises_its_status(self, target: str, keys: Keys) -> None:
        with pytest.raises(CallError, match="INVALID_ARGUMENT"):
            await call_repeatedly(target, requests(target, keys.user("alice"), "refuse"), 2, time.monotonic() + 1)

    async def test_invalid_token_raises_the_status_of_the_call(self, target: str) -> None:
        with pytest.raises(CallError, match="UNAUTHENTICATED"):
            await call_repeatedly(target, requests(target, "forged", "hello"), 2, time.monotonic() + 1)

    async def test_refused_connection_is_raised(self, keys: Keys) -> None:
        unused = f"127.0.0.1:{free_ports(1)[0]}"
        with pytest.raises(ConnectionRefusedError):
            await call_repeatedly(unused, requests(unused, keys.user("alice"), "hello"), 2, time.monotonic() + 1)
