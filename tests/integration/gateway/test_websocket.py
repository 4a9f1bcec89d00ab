"""WebSocket connections: authentication, limits, and the close codes of graphql-transport-ws."""

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway.graphql.execution.options import GraphOptions
from gateway.graphql.protection.limits import WebSocketLimits
from tests.conftest import USERS, Keys
from tests.integration.gateway.gateway_process import run_gateway
from tests.integration.gateway.slow_services import SlowServices
from tests.integration.gateway.websocket_client import connect_as_alice, open_websocket, subscribe
from tests.logs import own_warnings

WATCH = f'subscription {{ topUpUpdated(id: "{uuid4()}") {{ id }} }}'
CLIENT_MISTAKES: dict[str, dict[str, Any]] = {
    "unknown operation": {"query": "query A { __typename }", "operationName": "B"},
    "no operation name": {"query": "query A { __typename } query B { __typename }"},
    "several anonymous operations": {"query": "{ __typename } { __typename }"},
    "empty query": {"query": ""},
    "only a comment": {"query": "# nothing"},
    "fragment alone": {"query": "fragment F on Query { __typename }"},
    "definition of a type": {"query": "type A { b: Int }"},
    "missing variable": {"query": "query($id: ID!) { account(id: $id) { id } }"},
    "variable of the wrong type": {
        "query": "query($id: ID!) { account(id: $id) { id } }",
        "variables": {"id": ["x"]},
    },
    "missing variable of a subscription": {"query": "subscription($id: ID!) { topUpUpdated(id: $id) { id } }"},
    "variable of a subscription with the wrong type": {
        "query": "subscription($id: ID!) { topUpUpdated(id: $id) { id } }",
        "variables": {"id": {}},
    },
    "hash without trusted documents": {"documentId": "a" * 64},
}
NO_SCHEME = "the scheme must be Bearer: write `Bearer` before the token"
SEVERAL_LINES = "Authorization: must be sent once"
SEVERAL_TOKENS = "Authorization: must have one token: the values of connection_init and of the upgrade request differ"
RETRYABLE_CODES = {1001, 1005, 1006, 1012, 1013, 1014, 4403, 4408}
"""Close codes after which graphql-ws's client reconnects (`isFatalInternalCloseCode`, `shouldRetryConnectOrThrow`)."""


def set_limits(monkeypatch: pytest.MonkeyPatch, limits: WebSocketLimits) -> None:
    """Set the WebSocket limits of gateways that start later in this test."""
    monkeypatch.setattr("gateway.__main__.GraphOptions", partial(GraphOptions, websocket_limits=limits))


async def wait_close_code(connection: ClientConnection) -> int:
    """Wait until the server closes the connection, and return the close code."""
    async with asyncio.timeout(10):
        await connection.wait_closed()
    assert connection.close_code is not None
    return connection.close_code


async def receive(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        message: dict[str, Any] = json.loads(await connection.recv())
        return message


def without_request_id(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**error, "extensions": {**error["extensions"], "requestId": ""}} for error in errors]


class TestConnection:
    async def test_connection_without_init_is_closed_after_the_time_limit(
        self, slow_target: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_limits(monkeypatch, WebSocketLimits(init_seconds=0.1))
        async with run_gateway(keys, tmp_path, slow_target) as url, open_websocket(url) as connection:
            assert await wait_close_code(connection) == 4408
            assert 4408 in RETRYABLE_CODES

    @pytest.mark.parametrize("params", [{}, {"authorization": "Bearer forged"}])
    async def test_connection_without_a_valid_token_is_closed(self, url: str, params: dict[str, str]) -> None:
        async with open_websocket(url) as connection:
            await connection.send(json.dumps({"type": "connection_init", "payload": params}))
            assert await wait_close_code(connection) == 4403

    @pytest.mark.parametrize(
        "payload",
        [
            {"authorization": "Bearer TOKEN"},
            {"Authorization": "bearer TOKEN"},
            {"AUTHORIZATION": "BEARER TOKEN"},
            {"authorization": "Bearer   TOKEN "},
            {"headers": {"Authorization": "Bearer TOKEN"}},
            {"headers": {"authorization": "bearer TOKEN"}, "other": 1},
            {"headers": {"Authorization": "Bearer TOKEN"}, "authorization": "Bearer TOKEN"},
            {"headers": {"Authorization": "bearer  TOKEN"}, "authorization": "Bearer TOKEN"},
            {"headers": {"Authorization": "Bearer TOKEN", "authorization": "Bearer TOKEN"}},
            {"authorization": "Bearer TOKEN", "Authorization": "Bearer TOKEN"},
            *(
                {"headers": {"Authorization": "Bearer TOKEN"}, "authorization": value}
                for value in (None, "", "Bearer ")
            ),
            {"headers": None, "authorization": "Bearer TOKEN"},
            {"headers": [], "authorization": "Bearer TOKEN"},
            {"headers": "Authorization", "authorization": "Bearer TOKEN"},
        ],
    )
    async def test_token_in_the_payload_authenticates(self, url: str, keys: Keys, payload: dict[str, Any]) -> None:
        text = json.dumps({"type": "connection_init", "payload": payload}).replace("TOKEN", keys.user("alice"))
        async with open_websocket(url) as connection:
            await connection.send(text)
            assert await receive(connection) == {"type": "connection_ack"}

    @pytest.mark.parametrize(
        "init",
        [
            {},
            {"payload": None},
            {"payload": {}},
            {"payload": {"headers": {}}},
            {"payload": {"authorization": "Bearer "}},
        ],
    )
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
    async def test_token_in_the_upgrade_request_authenticates(
        self, url: str, keys: Keys, init: dict[str, Any], scheme: str
    ) -> None:
        headers = [("Authorization", f"{scheme} {keys.user('alice')}")]
        async with open_websocket(url, headers) as connection:
            await connection.send(json.dumps({"type": "connection_init", **init}))
            assert await receive(connection) == {"type": "connection_ack"}
            await subscribe(connection, "{ __typename }")
            assert (await receive(connection))["type"] == "next"

    @pytest.mark.parametrize(
        "value", ["Basic YTpi", "Digest username=proxy", "Bearer TOKEN", "bearer  TOKEN", "Bearer"]
    )
    async def test_token_in_the_payload_counts_beside_a_header_without_another_token(
        self, url: str, keys: Keys, value: str
    ) -> None:
        """A proxy may use the header for its own purposes."""
        token = keys.user("alice")
        async with open_websocket(url, [("Authorization", value.replace("TOKEN", token))]) as connection:
            payload = {"authorization": f"Bearer {token}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            assert await receive(connection) == {"type": "connection_ack"}

    @pytest.mark.parametrize(
        ("headers", "payload", "code", "reason"),
        [
            ([], {}, 4403, "a bearer token is required"),
            *(([], {"authorization": value}, 4403, "a bearer token is required") for value in ("", " ", "Bearer")),
            ([], {"authorization": "Bearer forged"}, 4403, "the token is not valid: it is malformed"),
            ([], {"authorization": "Bearer TOKEN\n"}, 4403, "the token is not valid: it is malformed"),
            ([], {"authorization": "Bearer TOKEN, Bearer TOKEN"}, 4400, SEVERAL_LINES),
            *(
                ([], {"authorization": value}, 4403, "`authorization` must be a string")
                for value in (7, False, ["Bearer TOKEN"], {"Bearer": "TOKEN"})
            ),
            *(
                ([], {"authorization": value}, 4403, NO_SCHEME)
                for value in ("TOKEN", " TOKEN", "Basic YTpi", "Token TOKEN", "Bearer\tTOKEN", "Bearer:TOKEN")
            ),
            ([], {"headers": {"Authorization": "TOKEN"}}, 4403, NO_SCHEME),
            ([], {"headers": {"Authorization": ["Bearer TOKEN"]}}, 4403, "`authorization` must be a string"),
            ([], {"authorization": "Bearer TOKEN", "Authorization": "Bearer x"}, 4400, SEVERAL_TOKENS),
            ([], {"headers": {"authorization": "Bearer TOKEN", "Authorization": "Bearer x"}}, 4400, SEVERAL_TOKENS),
            ([], {"headers": {"authorization": "Bearer x"}, "authorization": "Bearer TOKEN"}, 4400, SEVERAL_TOKENS),
            (["Bearer forged"], {}, 4403, "the token is not valid: it is malformed"),
            (["TOKEN"], {}, 4403, NO_SCHEME),
            (["Basic YTpi"], {}, 4403, NO_SCHEME),
            (["Bearer"], {}, 4403, "a bearer token is required"),
            (["TOKEN"], {"authorization": "Bearer TOKEN"}, 4403, NO_SCHEME),
            (["Bearer TOKEN"], {"authorization": "Basic YTpi"}, 4403, NO_SCHEME),
            (["Bearer TOKEN"], {"authorization": 7}, 4403, "`authorization` must be a string"),
            *(
                (lines, payload, 4400, SEVERAL_LINES)
                for lines in (["Bearer TOKEN", "Bearer TOKEN"], ["Basic YTpi", "Bearer TOKEN"], ["Basic YTpi"] * 2)
                for payload in ({}, {"authorization": "Bearer TOKEN"})
            ),
            (["Bearer TOKEN, Basic YTpi"], {"authorization": "Bearer TOKEN"}, 4400, SEVERAL_LINES),
            (["Basic YTpi, Bearer OTHER"], {"authorization": "Bearer TOKEN"}, 4400, SEVERAL_LINES),
            (["Bearer OTHER"], {"authorization": "Bearer TOKEN"}, 4400, SEVERAL_TOKENS),
            (["bearer OTHER"], {"headers": {"Authorization": "Bearer TOKEN"}}, 4400, SEVERAL_TOKENS),
            (["Bearer forged"], {"authorization": "Bearer TOKEN"}, 4400, SEVERAL_TOKENS),
        ],
    )
    async def test_refused_authorization_closes_the_connection_with_the_reason(
        self, url: str, keys: Keys, headers: list[str], payload: dict[str, Any], code: int, reason: str
    ) -> None:
        token, other = keys.user("alice"), keys.user("bob")
        lines = [("Authorization", each.replace("TOKEN", token).replace("OTHER", other)) for each in headers]
        async with open_websocket(url, lines) as connection:
            text = json.dumps({"type": "connection_init", "payload": payload}).replace("TOKEN", token)
            await connection.send(text)
            assert await wait_close_code(connection) == code
            assert (connection.close_reason or "").startswith(reason)
            assert token not in (connection.close_reason or "")

    async def test_token_within_the_leeway_opens_a_connection_that_stays_open(
        self, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with (
            run_gateway(keys, tmp_path, slow_target, auth_leeway_seconds=120) as url,
            connect_as_alice(url, keys, lifetime_seconds=-10) as connection,
        ):
            await subscribe(connection, "{ __typename }")
            assert [(await receive(connection))["type"] for _ in range(2)] == ["next", "complete"]

    async def test_operation_before_init_closes_the_connection(self, url: str) -> None:
        async with open_websocket(url) as connection:
            await subscribe(connection, WATCH)
            assert await wait_close_code(connection) == 4401

    async def test_second_init_closes_the_connection(self, url: str, keys: Keys) -> None:
        async with connect_as_alice(url, keys) as connection:
            await connection.send(json.dumps({"type": "connection_init"}))
            assert await wait_close_code(connection) == 4429

    async def test_duplicate_operation_id_closes_the_connection(self, url: str, keys: Keys) -> None:
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, WATCH)
            await subscribe(connection, WATCH)
            assert await wait_close_code(connection) == 4409

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
    async def test_malformed_message_closes_the_connection(self, url: str, keys: Keys, message: str | bytes) -> None:
        async with connect_as_alice(url, keys) as connection:
            await connection.send(message)
            assert await wait_close_code(connection) == 4400

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "x" * 1_000},
            {"type": "subscribe", "id": "x" * 129, "payload": {"query": "{ __typename }"}},
            {"type": "complete", "id": "\N{WATER WAVE}" * 129},
        ],
    )
    async def test_unknown_type_or_too_long_id_closes_the_connection_with_advice(
        self, url: str, keys: Keys, message: dict[str, Any]
    ) -> None:
        async with connect_as_alice(url, keys) as connection:
            await connection.send(json.dumps(message))
            assert await wait_close_code(connection) == 4400
            assert connection.close_reason in {
                "id must be at most 128 characters",
                "type must be one of complete, connection_init, ping, pong, subscribe",
            }

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            ({"type": "subscribe", "id": "1"}, "a message of type subscribe needs payload"),
            ({"type": "subscribe"}, "a message of type subscribe needs id and payload"),
            ({"type": "complete"}, "a message of type complete needs id"),
        ],
    )
    async def test_reason_names_the_missing_members(
        self, url: str, keys: Keys, message: dict[str, Any], reason: str
    ) -> None:
        async with connect_as_alice(url, keys) as connection:
            await connection.send(json.dumps(message))
            assert (await wait_close_code(connection), connection.close_reason) == (4400, reason)

    async def test_id_of_the_maximum_length_is_accepted(self, url: str, keys: Keys) -> None:
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, "{ __typename }", "\N{WATER WAVE}" * 128)
            assert (await receive(connection))["id"] == "\N{WATER WAVE}" * 128

    async def test_reason_of_a_duplicate_id_does_not_quote_it(self, url: str, keys: Keys) -> None:
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, WATCH, "x" * 128)
            await subscribe(connection, WATCH, "x" * 128)
            assert await wait_close_code(connection) == 4409
            assert connection.close_reason == "an operation with this id is running: use another id"

    async def test_too_many_messages_before_the_acknowledgement_close_the_connection(self, url: str) -> None:
        async with open_websocket(url) as connection:
            for _ in range(10):
                await connection.send('{"type": "ping"}')
                assert (await receive(connection))["type"] == "pong"
            await connection.send('{"type": "ping"}')
            assert await wait_close_code(connection) == 4429

    async def test_flood_before_init_does_not_delay_the_init_time_out(
        self, slow_target: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_limits(monkeypatch, WebSocketLimits(init_seconds=0.5))
        async with run_gateway(keys, tmp_path, slow_target) as url, open_websocket(url) as connection:
            with suppress(ConnectionClosed):  # on a busy machine, the connection may be closed before the loop ends
                for _ in range(1_500):  # fewer pings than close a connection, more than are handled within 0.5 s
                    await connection.ping()
            assert await wait_close_code(connection) == 4408

    async def test_message_above_the_size_limit_closes_the_connection(
        self, slow_target: str, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_limits(monkeypatch, WebSocketLimits(message_bytes=1_000))
        async with run_gateway(keys, tmp_path, slow_target) as url, connect_as_alice(url, keys) as connection:
            await subscribe(connection, "{ __typename }" + " " * 800)
            assert (await receive(connection))["payload"] == {"data": {"__typename": "Query"}}
            await subscribe(connection, "{ __typename }" + " " * 1_000, "2")
            assert await wait_close_code(connection) == 1009

    async def test_shutdown_closes_connections_with_a_retryable_code(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        stop = asyncio.Event()
        async with (
            run_gateway(keys, tmp_path, slow_target, stop=stop) as url,
            connect_as_alice(url, keys) as connection,
        ):
            await subscribe(connection, WATCH)
            async with asyncio.timeout(10):
                await slow_services.started.get()
            stop.set()
            assert await wait_close_code(connection) == 1012
            assert 1012 in RETRYABLE_CODES
            async with asyncio.timeout(10):
                assert await slow_services.cancelled.get() == "WatchTopUp"

    async def test_token_expiry_closes_the_connection_and_a_new_token_reconnects(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with run_gateway(keys, tmp_path, slow_target) as url:
            for lifetime_seconds in (2, 8):  # on a busy machine, the subscription may not start within two seconds
                async with connect_as_alice(url, keys, lifetime_seconds=lifetime_seconds) as connection:
                    await subscribe(connection, WATCH)
                    assert await wait_close_code(connection) == 4403
                    assert connection.close_reason == "the token has expired; get a new one"
                if not slow_services.started.empty():
                    break
            assert 4403 in RETRYABLE_CODES
            async with asyncio.timeout(10):
                assert await slow_services.cancelled.get() == "WatchTopUp"
            async with connect_as_alice(url, keys) as connection:
                await subscribe(connection, "{ __typename }")
                assert (await receive(connection))["type"] == "next"

    @pytest.mark.parametrize("caller", ["a service", "a user without roles"])
    async def test_token_without_any_permission_closes_the_connection(self, url: str, keys: Keys, caller: str) -> None:
        token = keys.service("card") if caller == "a service" else keys.signers[USERS].sign("nobody", 60)
        async with open_websocket(url) as connection:
            payload = {"authorization": f"Bearer {token}"}
            await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
            assert await wait_close_code(connection) == 4403

    async def test_connections_of_one_address_without_a_verified_caller_are_limited(self, url: str, keys: Keys) -> None:
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(open_websocket(url)) for _ in range(100)]
            waiting = asyncio.create_task(stack.enter_async_context(open_websocket(url)))
            async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
                assert (await http.get("/health/live")).status_code == 200
            assert not waiting.done()
            init = {"type": "connection_init", "payload": {"authorization": f"Bearer {keys.user('alice')}"}}
            await opened[0].send(json.dumps(init))
            assert json.loads(await opened[0].recv())["type"] == "connection_ack"
            await waiting


class TestOperations:
    async def test_large_messages_of_running_operations_are_limited(
        self, url: str, keys: Keys, slow_services: SlowServices
    ) -> None:
        async with connect_as_alice(url, keys) as connection:
            for number in range(9):
                await subscribe(connection, WATCH, str(number), variables={"unused": "x" * 60_000})
            refused = json.loads(await connection.recv())
            assert (refused["type"], refused["id"]) == ("error", "8")
            assert refused["payload"][0]["extensions"]["code"] == "RESOURCE_EXHAUSTED"
            await connection.send(json.dumps({"type": "complete", "id": "0"}))
            assert await slow_services.cancelled.get() == "WatchTopUp"
            await subscribe(connection, "{ __typename }", "9", variables={"unused": "x" * 60_000})
            assert json.loads(await connection.recv())["id"] == "9"

    async def test_operation_above_the_connections_limit_is_refused(
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
            refused = await receive(connection)
            assert (refused["id"], refused["type"]) == ("3", "error")
            (error,) = refused["payload"]
            assert error["extensions"]["code"] == "GRAPHQL_OPERATIONS_EXCEEDED"
            assert error["extensions"]["limit"] == 2
            await slow_services.started.get()
            await connection.send(json.dumps({"id": "1", "type": "complete"}))
            await subscribe(connection, "{ __typename }", "4")
            result = await receive(connection)
            assert (result["id"], result["type"], result["payload"]) == ("4", "next", {"data": {"__typename": "Query"}})

    async def test_stream_limit_of_a_caller_applies_to_all_its_connections(
        self, slow_services: SlowServices, slow_target: str, keys: Keys, tmp_path: Path
    ) -> None:
        async with (
            run_gateway(keys, tmp_path, slow_target, gateway_streams=2) as url,
            connect_as_alice(url, keys) as connection,
        ):
            await subscribe(connection, WATCH, "1")
            await slow_services.started.get()
            await subscribe(connection, WATCH, "2")
            (error,) = (await receive(connection))["payload"]
            assert (error["extensions"]["code"], error["extensions"]["limit"]) == ("GRAPHQL_STREAMS_EXCEEDED", 2)
            async with connect_as_alice(url, keys) as another:
                assert await wait_close_code(another) == 1013
            await connection.send(json.dumps({"id": "1", "type": "complete"}))
            assert await slow_services.cancelled.get() == "WatchTopUp"
            async with connect_as_alice(url, keys) as another:
                await subscribe(another, "{ __typename }")
                assert (await receive(another))["type"] == "next"

    @pytest.mark.parametrize("mistake", CLIENT_MISTAKES)
    async def test_client_mistake_has_the_same_error_over_all_transports(
        self, url: str, keys: Keys, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, mistake: str
    ) -> None:
        request = CLIENT_MISTAKES[mistake]
        with capture_logs() as logged:
            async with connect_as_alice(url, keys) as connection:
                await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": request}))
                refused = await receive(connection)
                await subscribe(connection, "{ __typename }", "2")
                responses = [await receive(connection) for _ in range(2)]
            plain = (await http.post("/graphql", json=request)).json()
            stream = await http.post("/graphql", json=request, headers={"Accept": "text/event-stream"})
        assert own_warnings(logged, caplog.records) == []
        assert [(each["id"], each["type"]) for each in responses] == [("2", "next"), ("2", "complete")]  # still open
        assert (refused["id"], refused["type"]) == ("1", "error")
        if "documentId" in request:  # refused before a stream starts
            streamed = stream.json()["errors"]
        else:
            streamed = json.loads(stream.text.split("\n")[1].removeprefix("data: "))["errors"]
        assert without_request_id(refused["payload"]) == without_request_id(streamed)
        if "subscription" not in request.get("query", ""):  # a plain response refuses each subscription
            assert without_request_id(plain["errors"]) == without_request_id(streamed)
        expected = "PERSISTED_QUERY_NOT_SUPPORTED" if "documentId" in request else "INVALID_GRAPHQL"
        assert {error["extensions"]["code"] for error in streamed + plain["errors"]} == {expected}

    async def test_subscription_that_cannot_start_has_the_same_result_over_both_transports(
        self, url: str, keys: Keys, http: httpx.AsyncClient
    ) -> None:
        query = 'subscription { topUpUpdated(id: "x") { id } }'
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, query)
            result, end = [await receive(connection) for _ in range(2)]
        stream = await http.post("/graphql", json={"query": query}, headers={"Accept": "text/event-stream"})
        streamed = json.loads(stream.text.split("\n")[1].removeprefix("data: "))
        assert (result["type"], end["type"]) == ("next", "complete")
        assert result["payload"].keys() == streamed.keys() == {"errors"}
        assert without_request_id(result["payload"]["errors"]) == without_request_id(streamed["errors"])

    async def test_client_that_disconnects_during_an_operation_is_not_logged_as_an_error(
        self, url: str, keys: Keys, caplog: pytest.LogCaptureFixture
    ) -> None:
        with capture_logs() as logged:
            for _ in range(5):
                async with connect_as_alice(url, keys) as connection:
                    for id_ in range(20):
                        await subscribe(connection, "{ __typename }", str(id_))
                    connection.transport.abort()
            async with connect_as_alice(url, keys) as connection:
                await subscribe(connection, "{ __typename }")
                assert (await receive(connection))["type"] == "next"
        assert own_warnings(logged, caplog.records) == []

    @pytest.mark.parametrize("end", ["reset", "close frame", "malformed messages"])
    async def test_connection_that_ends_before_its_responses_is_not_logged_as_an_error(
        self, url: str, keys: Keys, caplog: pytest.LogCaptureFixture, end: str
    ) -> None:
        with capture_logs() as logged:
            for _ in range(5):
                async with connect_as_alice(url, keys) as connection:
                    for id_ in range(20):
                        await subscribe(connection, "{ me { id } }", str(id_))
                    if end == "reset":
                        connection.transport.abort()
                    elif end == "close frame":
                        await connection.close(1000)
                    else:
                        await connection.send('{"type": "unknown"}')
                        await connection.send('{"type": "unknown"}')
                        with suppress(ConnectionClosed):
                            while await receive(connection):
                                pass
                        assert connection.close_code == 4400
            async with connect_as_alice(url, keys) as connection:
                await subscribe(connection, "{ __typename }")
                assert (await receive(connection))["type"] == "next"
        assert own_warnings(logged, caplog.records) == []

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("{", "INVALID_GRAPHQL"),
            ("{ nothing }", "INVALID_GRAPHQL"),
            ("{ " + "a " * 3_000 + "}", "GRAPHQL_TOKENS_EXCEEDED"),
            ("{ a { b { c { d { e { f { g { h { i { j { k { l { m } } } } } } } } } } } } }", "GRAPHQL_DEPTH_EXCEEDED"),
            ('{ account(id: "") { operations(first: 10000) { edges { node { id } } } } }', "GRAPHQL_COST_EXCEEDED"),
        ],
    )
    async def test_refused_operation_leaves_the_connection_open(
        self, url: str, keys: Keys, query: str, code: str
    ) -> None:
        async with connect_as_alice(url, keys) as connection:
            await subscribe(connection, query)
            refused = await receive(connection)
            assert (refused["id"], refused["type"]) == ("1", "error")
            assert {error["extensions"]["code"] for error in refused["payload"]} == {code}
            await subscribe(connection, "{ __typename }")
            assert (await receive(connection))["payload"]["data"] == {"__typename": "Query"}
