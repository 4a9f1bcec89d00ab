import time
from collections.abc import AsyncIterator, Iterator
from itertools import repeat

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from benchmarks.http2_client import CallError, header_block, keep_calling
from kit.rpc import request_context
from stack.ports import free_ports
from tests.conftest import Keys
from tests.unit.kit.rpc.echo import SERVICE, serving
from wallet.errors import InvalidInput

said: list[tuple[str, str]] = []


async def say(text: str) -> str:
    """Notes who says what, and refuses one thing."""
    if text == "refuse":
        raise InvalidInput.for_field("text", "must be friendlier")
    said.append((request_context.current_principal().subject, text))
    return text


@pytest.fixture(scope="module")
async def target(keys: Keys) -> AsyncIterator[str]:
    async with serving(say, keys.verifier()) as target:
        yield target


def requests(target: str, token: str, text: str) -> Iterator[tuple[bytes, bytes]]:
    return repeat((header_block(target, f"/{SERVICE}/Say", 5, token), StringValue(value=text).SerializeToString()))


class TestKeepCalling:
    async def test_a_real_server_hears_each_call_and_who_calls(self, target: str, keys: Keys) -> None:
        said.clear()
        until = time.monotonic() + 1
        calls = await keep_calling(target, requests(target, keys.user("alice"), "hello"), 16, until)
        assert len(calls) >= 16
        assert said == [("alice", "hello")] * len(calls)
        assert all(one.began < until and one.began <= one.ended for one in calls)

    async def test_more_than_the_first_window_of_a_connection_gets_through(self, target: str, keys: Keys) -> None:
        text = "x" * 8_000
        calls = await keep_calling(target, requests(target, keys.user("alice"), text), 64, time.monotonic() + 1)
        assert len(calls) >= 64

    async def test_a_refusal_ends_it_with_its_status(self, target: str, keys: Keys) -> None:
        with pytest.raises(CallError, match="INVALID_ARGUMENT"):
            await keep_calling(target, requests(target, keys.user("alice"), "refuse"), 2, time.monotonic() + 1)

    async def test_a_token_that_is_not_believed_ends_it(self, target: str) -> None:
        with pytest.raises(CallError, match="UNAUTHENTICATED"):
            await keep_calling(target, requests(target, "forged", "hello"), 2, time.monotonic() + 1)

    async def test_nobody_there_ends_it(self, keys: Keys) -> None:
        nowhere = f"127.0.0.1:{free_ports(1)[0]}"
        with pytest.raises(ConnectionRefusedError):
            await keep_calling(nowhere, requests(nowhere, keys.user("alice"), "hello"), 2, time.monotonic() + 1)
