"""Subscriptions of the whole system over WebSocket and server-sent events."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.feeds import BALANCE_CHANGED, OPERATION_ADDED, next_value, subscribe, websocket
from tests.e2e.users import User
from wallet import cursor


class TestOperationAdded:
    async def test_subscription_shows_the_next_transfer(self, alice: User, bob: User) -> None:
        async with websocket(bob) as connection:
            feed = subscribe(connection, OPERATION_ADDED, account=bob.account, after="djA")
            await alice.transfer(bob.account, "1.00")
            assert (await next_value(feed, "operationAdded"))["amount"]["amount"] == "1.00"

            await alice.transfer(bob.account, "2.00")
            operation = await next_value(feed, "operationAdded")
            assert (operation["direction"], operation["amount"]["amount"]) == ("IN", "2.00")
            assert operation["counterparty"]["id"] == alice.account

    async def test_subscription_replays_from_a_cursor_then_continues_live(self, alice: User, bob: User) -> None:
        for number in range(1, 6):
            await alice.transfer(bob.account, f"{number}.00")
        async with websocket(alice) as connection:
            feed = subscribe(connection, OPERATION_ADDED, account=alice.account, after="djA")
            seen = [await next_value(feed, "operationAdded") for _ in range(3)]
        async with websocket(alice) as connection:
            feed = subscribe(connection, OPERATION_ADDED, account=alice.account, after=seen[-1]["cursor"])
            await asyncio.gather(*(alice.transfer(bob.account, "9.00") for _ in range(5)))
            seen += [await next_value(feed, "operationAdded") for _ in range(7)]
        assert [each["amount"]["amount"] for each in seen] == ["1.00", "2.00", "3.00", "4.00", "5.00", *["9.00"] * 5]
        assert len({each["cursor"] for each in seen}) == 10
        balances = [float(each["balanceAfter"]["amount"]) for each in seen]
        assert balances == sorted(balances, reverse=True)

    async def test_subscription_to_another_users_account_is_refused(self, alice: User, bob: User) -> None:
        async with websocket(alice) as connection:
            feed = subscribe(connection, OPERATION_ADDED, account=bob.account)
            with pytest.raises(LookupError, match="ACCOUNT_NOT_FOUND"):
                await next_value(feed, "operationAdded")

    async def test_operations_arrive_as_server_sent_events(self, alice: User, bob: User) -> None:
        request = {"query": OPERATION_ADDED, "variables": {"account": alice.account, "after": "djA"}}
        headers = {"Authorization": f"Bearer {alice.token}", "Accept": "text/event-stream"}
        async with (
            httpx.AsyncClient(base_url=alice.http.base_url) as http,
            http.stream("POST", "/graphql", json=request, headers=headers) as response,
        ):
            assert response.headers["content-type"].startswith("text/event-stream")
            await alice.transfer(bob.account, "3.00")
            async with asyncio.timeout(5):
                async for line in response.aiter_lines():
                    if line.startswith("data:") and line != "data:":
                        data = json.loads(line.removeprefix("data:"))
                        break
        assert data["data"]["operationAdded"]["amount"]["amount"] == "3.00"


class TestBalanceChanged:
    async def test_current_balance_comes_first_then_one_per_operation(self, alice: User, bob: User) -> None:
        async with websocket(bob) as connection:
            feed = subscribe(connection, BALANCE_CHANGED, account=bob.account)
            now = await next_value(feed, "balanceChanged")
            assert now["balance"] == {"amount": "500.00", "currency": "RUB"}
            for amount in ("10.00", "20.00"):
                await alice.transfer(bob.account, amount)
            assert [(await next_value(feed, "balanceChanged"))["balance"]["amount"] for _ in range(2)] == [
                "510.00",
                "530.00",
            ]

    async def test_balance_updates_during_transfers_are_consecutive(self, alice: User, bob: User) -> None:
        """Subscribe during transfers. The first balance includes transfers whose events arrive after this balance."""
        stop = asyncio.Event()

        async def pay() -> int:
            paid = 0
            while not stop.is_set():
                assert (await alice.transfer(bob.account, "1.00")).status_code == 201
                paid += 1
            return paid

        async def updates() -> list[tuple[int, str]]:
            async with websocket(bob) as connection:
                feed = subscribe(connection, BALANCE_CHANGED, account=bob.account)
                seen = [await next_value(feed, "balanceChanged") for _ in range(6)]
            return [(cursor.decode_version(each["cursor"]), each["balance"]["amount"]) for each in seen]

        paying = asyncio.gather(*(pay() for _ in range(3)))
        try:
            feeds = [await updates() for _ in range(3)] + await asyncio.gather(*(updates() for _ in range(3)))
        finally:
            stop.set()
        assert sum(await paying) >= max(feed[-1][0] for feed in feeds)
        for feed in feeds:
            first = feed[0][0]
            assert feed == [(first + n, f"{500 + first + n}.00") for n in range(6)]


class TestConnection:
    async def test_connection_without_valid_token_is_closed(self, alice: User) -> None:
        with pytest.raises(ConnectionClosed) as closed:
            async with websocket(alice, authorization="Bearer nonsense"):
                pass
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4403

    async def test_connection_from_another_origin_is_refused(self, alice: User) -> None:
        url = f"{alice.http.base_url}".replace("http", "ws").rstrip("/") + "/graphql"
        with pytest.raises(InvalidStatus):
            async with connect(url, origin="https://evil.example", subprotocols=["graphql-transport-ws"]):  # type: ignore[arg-type, list-item]
                pass

    async def test_connection_from_localhost_origin_is_accepted_in_development(self, alice: User) -> None:
        url = f"{alice.http.base_url}".replace("http", "ws").rstrip("/") + "/graphql"
        origin: Any = "http://localhost:5173"
        protocols: Any = ["graphql-transport-ws"]
        async with connect(url, origin=origin, subprotocols=protocols) as connection:
            assert connection.subprotocol == "graphql-transport-ws"

    async def test_legacy_protocol_is_refused(self, alice: User) -> None:
        url = f"{alice.http.base_url}".replace("http", "ws").rstrip("/") + "/graphql"
        async with connect(url, subprotocols=["graphql-ws"]) as connection:  # type: ignore[list-item]
            with pytest.raises(ConnectionClosed) as closed:
                await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4406
