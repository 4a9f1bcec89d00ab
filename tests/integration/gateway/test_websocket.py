"""What one WebSocket may do, and the codes of graphql-transport-ws that it is closed with."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection

from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.protection.limits import WebSocketLimits
from tests.conftest import USERS, Keys
from tests.integration.gateway.gateway_process import run_gateway
from tests.integration.gateway.slow_services import SlowServices
from tests.integration.gateway.websocket_client import connect_as_alice, open_websocket, subscribe

WATCH = f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ id }} }}'
RETRIED = {1001, 1005, 1006, 1012, 1013, 1014, 4403, 4408}
"""Codes after which graphql-ws's client connects again (`isFatalInternalCloseCode` and `shouldRetryConnectOrThrow`)."""


def set_limits(monkeypatch: pytest.MonkeyPatch, limits: WebSocketLimits) -> None:
    """Give gateways that start from now on these limits of a WebSocket."""
    monkeypatch.setattr("gateway.__main__.GraphOptions", partial(GraphOptions, websocket_limits=limits))


async def closing(connection: ClientConnection) -> int:
    """The code that the server closes with, whatever it says before."""
    async with asyncio.timeout(10):
        await connection.wait_closed()
    assert connection.close_code is not None
    return connection.close_code


async def answer(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        message: dict[str, Any] = json.loads(await connection.recv())
        return message


class TestConnection:
    async def test_that_does_not_say_who_it_is_is_closed_in_time(
        self, slow_target: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_limits(monkeypatch, WebSocketLimits(init_seconds=0.1))
        async with run_gateway(keys, tmp_path, slow_target) as url, open_websocket(url) as connection:
            assert await closing(connection) == 4408
            assert 4408 in RETRIED

    @pytest.mark.parametrize("params", [{}, {"authorization": "Bearer forged"}])
    async def test_of_nobody_is_forbidden(self, url: str, params: dict[str, str]) -> None:
        async with open_websocket(url) as connection:
            await connection.send(json.dumps({"type": "connection_init", "payload": params}))
            assert await closing(connection) == 4403

    async def test_may_not_ask_before_it_says_who_it_is(self, url: str) -> None:
        async with open_websocket(url) as connection:
            await subscribe(connection, WATCH)
            assert await closing(connection) == 4401

    async def test_says_who_it_is_once(self, url: str, keys: Keys) -> None:
        async with connect_as_alice(url, keys) as connection:
            await connection.send(json.dumps({"type": "connection_init"}))
            assert await closing(connection) == 4429

    async def test_has_an_id_for_one_operation_at_once(self, url: str, keys: Keys) -> None:
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, WATCH)
            await subscribe(connection, WATCH)
            assert await closing(connection) == 4409

    @pytest.mark.parametrize(
        "message",
        [
            "{",
            "[]",
            '"text"',
            '{"type": "other"}',
            '{"id": "1", "type": "subscribe"}',
            '{"type": "subscribe", "payload": {"query": "{ __typename }"}}',
            '{"id": 1, "type": "subscribe", "payload": {"query": "{ __typename }"}}',
            '{"id": "1", "type": "subscribe", "payload": "{ __typename }"}',
            '{"id": "1", "type": "subscribe", "payload": {"query": 1}}',
            '{"id": "1", "type": "subscribe", "payload": {"query": "{ __typename }", "variables": []}}',
            '{"id": [], "type": "complete"}',
            '{"type": "ping", "type": "ping"}',
            "[" * 30_000,
            "1" * 5_000,
            b"{}",
        ],
    )
    async def test_is_closed_for_what_is_no_message(self, url: str, keys: Keys, message: str | bytes) -> None:
        async with connect_as_alice(url, keys) as connection:
            await connection.send(message)
            assert await closing(connection) == 4400

    async def test_takes_no_message_that_is_too_large(
        self, slow_target: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_limits(monkeypatch, WebSocketLimits(message_bytes=1_000))
        async with run_gateway(keys, tmp_path, slow_target) as url, connect_as_alice(url, keys) as connection:
            await subscribe(connection, "{ __typename }" + " " * 800)
            assert (await answer(connection))["payload"] == {"data": {"__typename": "Query"}}
            await subscribe(connection, "{ __typename }" + " " * 1_000, "2")
            assert await closing(connection) == 1009

    async def test_is_told_to_come_again_when_the_gateway_stops(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        stop = asyncio.Event()
        async with (
            run_gateway(keys, tmp_path, slow_target, stop=stop) as url,
            connect_as_alice(url, keys) as connection,
        ):
            await subscribe(connection, WATCH)
            await slow_services.started.get()
            stop.set()
            assert await closing(connection) == 1012
            assert 1012 in RETRIED
            async with asyncio.timeout(10):
                assert await slow_services.cancelled.get() == "WatchTopUp"

    async def test_ends_with_its_token_and_may_come_again_with_another(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with run_gateway(keys, tmp_path, slow_target) as url:
            async with connect_as_alice(url, keys, lifetime_seconds=2) as connection:
                await subscribe(connection, WATCH)
                await slow_services.started.get()
                assert await closing(connection) == 4403
                assert connection.close_reason == "the token has expired; get a new one"
                assert 4403 in RETRIED
                async with asyncio.timeout(10):
                    assert await slow_services.cancelled.get() == "WatchTopUp"
            async with connect_as_alice(url, keys) as connection:
                await subscribe(connection, "{ __typename }")
                assert (await answer(connection))["type"] == "next"

    @pytest.mark.parametrize("who", ["a service", "a user without roles"])
    async def test_is_not_for_whom_nothing_is_open(self, url: str, keys: Keys, who: str) -> None:
        token = keys.service("card") if who == "a service" else keys.signers[USERS].sign("nobody", 60)
        async with open_websocket(url) as connection:
            payload = {"authorization": f"Bearer {token}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            assert await closing(connection) == 4403


class TestOperations:
    async def test_are_so_many_at_once_and_no_more(
        self,
        slow_services: SlowServices,
        slow_target: str,
        keys: Keys,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        set_limits(monkeypatch, WebSocketLimits(operations=2))
        async with run_gateway(keys, tmp_path, slow_target) as url, connect_as_alice(url, keys) as connection:
            await subscribe(connection, WATCH, "1")
            await subscribe(connection, WATCH, "2")
            await subscribe(connection, WATCH, "3")
            refused = await answer(connection)
            assert (refused["id"], refused["type"]) == ("3", "error")
            (error,) = refused["payload"]
            assert error["extensions"]["code"] == "GRAPHQL_OPERATIONS_EXCEEDED"
            assert error["extensions"]["limit"] == 2
            await slow_services.started.get()
            await connection.send(json.dumps({"id": "1", "type": "complete"}))
            await subscribe(connection, "{ __typename }", "4")
            told = await answer(connection)
            assert (told["id"], told["type"], told["payload"]) == ("4", "next", {"data": {"__typename": "Query"}})

    async def test_of_one_caller_are_so_many_open_however_many_connections_there_are(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with (
            run_gateway(keys, tmp_path, slow_target, gateway_streams=2) as url,
            connect_as_alice(url, keys) as connection,
        ):
            await subscribe(connection, WATCH, "1")
            await slow_services.started.get()
            await subscribe(connection, WATCH, "2")
            (error,) = (await answer(connection))["payload"]
            assert (error["extensions"]["code"], error["extensions"]["limit"]) == ("GRAPHQL_STREAMS_EXCEEDED", 2)
            async with connect_as_alice(url, keys) as another:
                assert await closing(another) == 1013
            await connection.send(json.dumps({"id": "1", "type": "complete"}))
            assert await slow_services.cancelled.get() == "WatchTopUp"
            async with connect_as_alice(url, keys) as another:
                await subscribe(another, "{ __typename }")
                assert (await answer(another))["type"] == "next"

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("{", "INVALID_GRAPHQL"),
            ("{ nothing }", "INVALID_GRAPHQL"),
            ("{ " + "a " * 3_000 + "}", "GRAPHQL_TOKENS_EXCEEDED"),
            ("{ a { b { c { d { e { f { g { h { i { j { k { l { m } } } } } } } } } } } } }", "GRAPHQL_DEPTH_EXCEEDED"),
            ('{ account(id: "") { operations(first: 5000) { edges { node { id } } } } }', "GRAPHQL_COST_EXCEEDED"),
        ],
    )
    async def test_that_are_refused_leave_the_connection_as_it_was(
        self, url: str, keys: Keys, query: str, code: str
    ) -> None:
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, query)
            refused = await answer(connection)
            assert (refused["id"], refused["type"]) == ("1", "error")
            assert {error["extensions"]["code"] for error in refused["payload"]} == {code}
            await subscribe(connection, "{ __typename }")
            assert (await answer(connection))["payload"]["data"] == {"__typename": "Query"}
