"""Killed and stopped components: the system recovers, loses no transfer, and returns the documented errors."""

import asyncio
import os
import signal
from collections.abc import Iterable
from decimal import Decimal

import httpx
import pytest

from stack.system import System
from tests.e2e.feeds import BALANCE_CHANGED, OPERATION_ADDED, next_value, subscribe, websocket
from tests.e2e.outages.plan import BANKS
from tests.e2e.users import User, transfer_until_known
from tests.waiting import until

pytestmark = pytest.mark.slow


async def balance_if_known(user: User) -> Decimal | None:
    try:
        response = await user.http.get(f"/accounts/{user.account}")
    except httpx.TransportError:
        return None
    return Decimal(response.json()["balance"]) if response.status_code == 200 else None


async def count_operations(user: User) -> int:
    response = await user.http.get(f"/accounts/{user.account}/operations")
    return len(response.json()["operations"]) if response.status_code == 200 else -1


def send(system: System, names: Iterable[str], number: signal.Signals) -> None:
    """Send a signal to processes."""
    for name in names:
        os.kill(system.pid(name), number)


class TestKilledComponent:
    @pytest.mark.parametrize("name", ["bank", "analytics", "gateway", "clickhouse", "kafka", "postgres"])
    async def test_system_recovers_from_kill_without_losing_transfers(
        self, system: System, alice: User, bob: User, name: str
    ) -> None:
        await transfer_until_known(alice, bob.account, "1.00")

        send(system, BANKS if name == "bank" else [name], signal.SIGKILL)

        response = await transfer_until_known(alice, bob.account, "2.00")
        assert response.status_code == 201
        # The process may have sent this response just before it was killed, so the balance may be unavailable now.
        assert await until(lambda: balance_if_known(alice), within=20) == Decimal("997.00")

        async def is_in_both_histories() -> bool:
            try:
                return await count_operations(alice) == 2 and await count_operations(bob) == 2
            except httpx.TransportError:
                return False

        await until(is_in_both_histories, within=30)

    async def test_bank_killed_under_load_neither_loses_nor_repeats_transfers(
        self,
        system: System,
        alice: User,
        bob: User,
    ) -> None:
        async def transfer_and_kill(number: int) -> int:
            if number in {10, 25}:
                send(system, BANKS, signal.SIGKILL)
            return (await transfer_until_known(alice, bob.account, "1.00")).status_code

        limit = asyncio.Semaphore(4)

        async def transfer_with_limit(number: int) -> int:
            async with limit:
                return await transfer_and_kill(number)

        statuses = await asyncio.gather(*map(transfer_with_limit, range(40)))

        assert statuses == [201] * 40
        assert (await alice.balance(), await bob.balance()) == (Decimal("960.00"), Decimal("540.00"))

        async def is_complete() -> bool:
            return await count_operations(alice) == 40

        await until(is_complete, within=30)


class TestStoppedComponent:
    async def test_stopped_postgresql_gives_503_with_retry_after_until_it_restarts(
        self,
        system: System,
        alice: User,
        bob: User,
    ) -> None:
        banks = [system.pid(name) for name in BANKS]
        await system.supervisor.stop_process("postgres")
        try:
            response = await alice.transfer(bob.account, "1.00", key="during")
            assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
            assert int(response.headers["retry-after"]) >= 1
            read = await alice.http.get(f"/accounts/{alice.account}")
            assert read.status_code == 503
        finally:
            await system.supervisor.start_process("postgres")
        again = await alice.transfer(bob.account, "1.00", key="during")
        assert again.status_code == 201
        assert [system.pid(name) for name in BANKS] == banks, "a bank was restarted"
        assert await alice.balance() == Decimal("999.00")

    async def test_stopped_bank_gives_unavailable_within_the_deadline(
        self, system: System, alice: User, bob: User
    ) -> None:
        await asyncio.gather(*map(system.supervisor.stop_process, BANKS))
        try:
            async with asyncio.timeout(6):
                response = await alice.transfer(bob.account, "1.00", key="during")
            assert response.status_code == 503
            result = await alice.query("query($id: ID!) { account(id: $id) { id } }", id=alice.account)
            assert result["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        finally:
            await asyncio.gather(*map(system.supervisor.start_process, BANKS))

        async def is_transferred() -> bool:
            return (await alice.transfer(bob.account, "1.00", key="during")).status_code == 201

        await until(is_transferred)
        assert await alice.balance() == Decimal("999.00")

    async def test_frozen_bank_gives_504_within_the_deadline(self, system: System, alice: User, bob: User) -> None:
        await alice.balance()
        send(system, BANKS, signal.SIGSTOP)
        try:
            async with asyncio.timeout(8):
                response = await alice.transfer(bob.account, "1.00", key="during")
            assert (response.status_code, response.json()["code"]) == (504, "DEADLINE_EXCEEDED")
        finally:
            send(system, BANKS, signal.SIGCONT)
        again = await transfer_until_known(alice, bob.account, "1.00")
        assert again.status_code == 201

    async def test_stopped_kafka_delays_operations_but_not_transfers(
        self,
        system: System,
        alice: User,
        bob: User,
    ) -> None:
        await system.supervisor.stop_process("kafka")
        try:
            responses = [await alice.transfer(bob.account, "1.00") for _ in range(5)]
            assert [response.status_code for response in responses] == [201] * 5
        finally:
            await system.supervisor.start_process("kafka")

        async def is_complete() -> bool:
            return await count_operations(alice) == 5

        await until(is_complete, within=30)

    async def test_stopped_clickhouse_affects_operations_only(self, system: System, alice: User, bob: User) -> None:
        await system.supervisor.stop_process("clickhouse")
        try:
            assert (await alice.transfer(bob.account, "1.00")).status_code == 201
            response = await alice.http.get(f"/accounts/{alice.account}/operations")
            assert response.status_code == 503
            query = "query($id: ID!) { account(id: $id) { balance { amount } operations { edges { cursor } } } }"
            partial = await alice.query(query, id=alice.account)
            assert partial["data"]["account"] == {"balance": {"amount": "999.00"}, "operations": None}
            assert partial["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        finally:
            await system.supervisor.start_process("clickhouse")

        async def is_in_history() -> bool:
            return await count_operations(alice) == 1

        await until(is_in_history, within=30)


class TestSubscriptions:
    async def test_subscription_continues_without_gap_when_analytics_is_killed(
        self,
        system: System,
        alice: User,
        bob: User,
    ) -> None:
        async with websocket(bob) as connection:
            feed = subscribe(connection, OPERATION_ADDED, account=bob.account, after="djA")
            for number in range(1, 9):
                await alice.transfer(bob.account, f"{number}.00")
                if number == 4:
                    os.kill(system.pid("analytics"), signal.SIGKILL)
            received: list[str] = []
            async with asyncio.timeout(30):
                while len(received) < 8:
                    received.append((await anext(feed))["operationAdded"]["amount"]["amount"])
        assert received == [f"{number}.00" for number in range(1, 9)]

    async def test_subscription_resumes_after_a_cursor_when_gateway_is_killed(
        self,
        system: System,
        alice: User,
        bob: User,
    ) -> None:
        async with websocket(bob) as connection:
            feed = subscribe(connection, BALANCE_CHANGED, account=bob.account)
            start = await next_value(feed, "balanceChanged")
            os.kill(system.pid("gateway"), signal.SIGKILL)
        for _ in range(3):
            await transfer_until_known(alice, bob.account, "1.00")
        async with websocket(bob) as connection:
            feed = subscribe(connection, OPERATION_ADDED, account=bob.account, after=start["cursor"])
            balances = [(await next_value(feed, "operationAdded"))["balanceAfter"]["amount"] for _ in range(3)]
        assert balances == ["501.00", "502.00", "503.00"]
