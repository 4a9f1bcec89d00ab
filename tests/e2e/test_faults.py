"""What is killed comes back by itself, nothing is lost, and callers are told the truth meanwhile.

On a system of its own: these tests take parts of it away.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from decimal import Decimal

import httpx
import pytest

from stack.engines.cluster import remove_cluster
from stack.ports import Ports
from stack.system import System, run_system
from tests.e2e.feeds import BALANCE_CHANGED, OPERATION_ADDED, next_value, subscribe, websocket
from tests.e2e.users import User, transfer_until_known
from tests.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    data = tmp_path_factory.mktemp("faults")
    async with run_system(Ports.free(), data) as system:
        yield system
    remove_cluster(data)


async def balance_if_known(user: User) -> Decimal | None:
    try:
        answer = await user.http.get(f"/accounts/{user.account}")
    except httpx.TransportError:
        return None
    return Decimal(answer.json()["balance"]) if answer.status_code == 200 else None


async def operations_count(user: User) -> int:
    answer = await user.http.get(f"/accounts/{user.account}/operations")
    return len(answer.json()["operations"]) if answer.status_code == 200 else -1


class TestKilled:
    @pytest.mark.parametrize("name", ["bank", "analytics", "gateway", "clickhouse", "kafka", "postgres"])
    async def test_comes_back_and_nothing_is_lost(self, system: System, alice: User, bob: User, name: str) -> None:
        await transfer_until_known(alice, bob.account, "1.00")

        os.kill(system.pid(name), signal.SIGKILL)

        made = await transfer_until_known(alice, bob.account, "2.00")
        assert made.status_code == 201
        # What was killed may have answered this with its last breath, and be away only now.
        assert await until(lambda: balance_if_known(alice), within=20) == Decimal("997.00")

        async def both_there() -> bool:
            try:
                return await operations_count(alice) == 2 and await operations_count(bob) == 2
            except httpx.TransportError:
                return False

        await until(both_there, within=30)

    async def test_under_load_loses_nothing_acknowledged_and_doubles_nothing(
        self,
        system: System,
        alice: User,
        bob: User,
    ) -> None:
        async def pay(number: int) -> int:
            if number in {10, 25}:
                os.kill(system.pid("bank"), signal.SIGKILL)
            return (await transfer_until_known(alice, bob.account, "1.00")).status_code

        limit = asyncio.Semaphore(4)

        async def limited(number: int) -> int:
            async with limit:
                return await pay(number)

        statuses = await asyncio.gather(*map(limited, range(40)))

        assert statuses == [201] * 40
        assert (await alice.balance(), await bob.balance()) == (Decimal("960.00"), Decimal("540.00"))

        async def all_there() -> bool:
            return await operations_count(alice) == 40

        await until(all_there, within=30)


class TestTakenAway:
    async def test_postgresql_is_a_503_with_retry_after_until_it_is_back(
        self,
        system: System,
        alice: User,
        bob: User,
    ) -> None:
        bank = system.pid("bank")
        await system.supervisor.stop_process("postgres")
        try:
            answer = await alice.transfer(bob.account, "1.00", key="during")
            assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
            assert int(answer.headers["retry-after"]) >= 1
            read = await alice.http.get(f"/accounts/{alice.account}")
            assert read.status_code == 503
        finally:
            await system.supervisor.start_process("postgres")
        again = await alice.transfer(bob.account, "1.00", key="during")
        assert again.status_code == 201
        assert system.pid("bank") == bank, "the bank was restarted"
        assert await alice.balance() == Decimal("999.00")

    async def test_the_bank_is_said_to_be_away_within_the_deadline(
        self, system: System, alice: User, bob: User
    ) -> None:
        await system.supervisor.stop_process("bank")
        try:
            async with asyncio.timeout(6):
                answer = await alice.transfer(bob.account, "1.00", key="during")
            assert answer.status_code == 503
            by_graph = await alice.query("query($id: ID!) { account(id: $id) { id } }", id=alice.account)
            assert by_graph["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        finally:
            await system.supervisor.start_process("bank")

        async def answered() -> bool:
            return (await alice.transfer(bob.account, "1.00", key="during")).status_code == 201

        await until(answered)
        assert await alice.balance() == Decimal("999.00")

    async def test_a_frozen_bank_is_a_504_within_the_deadline(self, system: System, alice: User, bob: User) -> None:
        await alice.balance()
        os.kill(system.pid("bank"), signal.SIGSTOP)
        try:
            async with asyncio.timeout(8):
                answer = await alice.transfer(bob.account, "1.00", key="during")
            assert (answer.status_code, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")
        finally:
            os.kill(system.pid("bank"), signal.SIGCONT)
        again = await transfer_until_known(alice, bob.account, "1.00")
        assert again.status_code == 201

    async def test_kafka_neither_fails_nor_slows_transfers_and_operations_arrive_when_it_is_back(
        self,
        system: System,
        alice: User,
        bob: User,
    ) -> None:
        await system.supervisor.stop_process("kafka")
        try:
            answers = [await alice.transfer(bob.account, "1.00") for _ in range(5)]
            assert [answer.status_code for answer in answers] == [201] * 5
        finally:
            await system.supervisor.start_process("kafka")

        async def all_there() -> bool:
            return await operations_count(alice) == 5

        await until(all_there, within=30)

    async def test_clickhouse_costs_the_history_alone(self, system: System, alice: User, bob: User) -> None:
        await system.supervisor.stop_process("clickhouse")
        try:
            assert (await alice.transfer(bob.account, "1.00")).status_code == 201
            answer = await alice.http.get(f"/accounts/{alice.account}/operations")
            assert answer.status_code == 503
            query = "query($id: ID!) { account(id: $id) { balance { amount } operations { edges { cursor } } } }"
            partial = await alice.query(query, id=alice.account)
            assert partial["data"]["account"] == {"balance": {"amount": "999.00"}, "operations": None}
            assert partial["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        finally:
            await system.supervisor.start_process("clickhouse")

        async def there() -> bool:
            return await operations_count(alice) == 1

        await until(there, within=30)


class TestSubscriptions:
    async def test_go_on_without_gap_or_repeat_when_analytics_is_killed(
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
            seen: list[str] = []
            async with asyncio.timeout(30):
                while len(seen) < 8:
                    seen.append((await anext(feed))["operationAdded"]["amount"]["amount"])
        assert seen == [f"{number}.00" for number in range(1, 9)]

    async def test_resume_after_a_cursor_when_the_gateway_is_killed(
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
