"""Consumer groups in tests: load on all partitions, members that can be killed, and checks of the result."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from asyncapi.topics import DEAD_LETTER_TOPIC, OPERATIONS_TOPIC
from stack import probes
from stack.ports import HOST, free_ports
from stack.process import Child, Process, module
from subgraphs.analytics.service import __main__ as main
from subgraphs.analytics.service.adapters.clickhouse.database import Database
from subgraphs.analytics.service.adapters.clickhouse.history import History
from subgraphs.analytics.service.domain.model import Event, Row
from tests.integration.analytics.environment import AnalyticsEnvironment
from tests.waiting import until

PARTITIONS: Final = range(4)
_PAUSE_SECONDS: Final = 0.005


class Load:
    """Publishes events of some accounts to the partitions in turn.

    The events of one account are in all partitions, so they are consumed out of order and by all members.
    """

    def __init__(self, env: AnalyticsEnvironment, accounts: Sequence[UUID] = ()) -> None:
        self._env = env
        self._accounts = accounts or [env.bank.open(f"owner {n}") for n in range(6)]
        self._pairs = itertools.cycle(itertools.permutations(self._accounts, 2))
        self._partitions = itertools.cycle(PARTITIONS)
        self.events: list[Event] = []

    async def publish(self, count: int) -> None:
        """Publish `count` new events."""
        for _ in range(count):
            event = self._env.bank.transfer(*next(self._pairs))
            self.events.append(event)
            await self._env.publish(event, partition=next(self._partitions))

    async def publish_until(self, stop: asyncio.Event) -> None:
        """Publish events, with a short pause after each, until `stop` is set."""
        while not stop.is_set():
            await self.publish(1)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def count_rows(self) -> int:
        """Return the number of stored rows; every event has two."""
        return sum(found.count for found in (await self._env.history.get_coverage(self._accounts)).values())

    async def until_stored(self, within: float = 20.0) -> None:
        """Wait until every event has its two rows and the offsets of all messages are committed, without dead letters.

        If no repair runs, all rows come from the topic.
        """
        expected = {
            account: [
                (side.version, event.id, side.balance_after.amount)
                for event in self.events
                for side in (event.sender, event.recipient)
                if side.account_id == account
            ]
            for account in self._accounts
        }

        async def missing() -> dict[UUID, int]:
            stored = await self._env.history.get_coverage(self._accounts)
            return {id_: len(expected[id_]) - found.count for id_, found in stored.items()}

        async def all_there() -> bool:
            return not any((await missing()).values())

        try:
            await until(all_there, within=within)
        except AssertionError:
            raise AssertionError(f"number of rows that each account lacks: {await missing()}") from None
        for account, operations in expected.items():
            rows = await self._env.history.list_after(account, 0, 100_000)
            assert [(row.account_version, row.operation_id, row.balance_after) for row in rows] == sorted(operations)
        await self._env.until_committed(await count_messages(self._env))
        assert DEAD_LETTER_TOPIC not in await list_topics(self._env)


class BlockedHistory(History):
    """History that can block inserts. `largest` is the largest number of rows in one insert.

    `is_blocking` is set when an insert waits for `release`.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._released = asyncio.Event()
        self._released.set()
        self.is_blocking = asyncio.Event()
        self.largest = 0

    async def insert(self, rows: Sequence[Row]) -> None:
        self.largest = max(self.largest, len(rows))
        if not self._released.is_set():
            self.is_blocking.set()
            await self._released.wait()
        await super().insert(rows)

    def block(self) -> None:
        """Block inserts from now on."""
        self.is_blocking.clear()
        self._released.clear()

    def release(self) -> None:
        """Let blocked and later inserts continue."""
        self._released.set()


class Gate:
    """Proxy to ClickHouse. While it is closed, it forwards requests and holds back the responses to inserts."""

    def __init__(self, env: AnalyticsEnvironment) -> None:
        self._server = env.clickhouse.process.ports["http"]
        self._may_respond = asyncio.Event()
        self._may_respond.set()
        self.is_holding = asyncio.Event()

    def close(self) -> None:
        self._may_respond.clear()

    def open(self) -> None:
        self._may_respond.set()

    @asynccontextmanager
    async def serve(self, env: AnalyticsEnvironment) -> AsyncIterator[str]:
        """Run the proxy during the block; yield its DSN."""
        connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            connections.add(task)

        server = await asyncio.start_server(accept, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"http://{HOST}:{port}/{env.database._name}"
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(HOST, self._server)
        inserts = asyncio.Event()  # set while the newest request of the connection is an insert
        forwarding = asyncio.create_task(self._forward_requests(reader, to_server, inserts))
        try:
            while chunk := await from_server.read(2**16):
                if inserts.is_set() and not self._may_respond.is_set():
                    self.is_holding.set()
                    await self._may_respond.wait()
                writer.write(chunk)
                await writer.drain()
        finally:
            forwarding.cancel()
            to_server.close()
            writer.close()

    async def _forward_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inserts: asyncio.Event
    ) -> None:
        while chunk := await reader.read(2**16):
            if chunk.startswith((b"GET ", b"POST ")):
                inserts.clear()
            if b"INSERT" in chunk:
                inserts.set()
            writer.write(chunk)
            await writer.drain()


def analytics_process(
    env: AnalyticsEnvironment, clickhouse_dsn: str | None = None, bank_target: str | None = None
) -> Child:
    """Return an analytics process with the ports `grpc` and `admin`, which a test can kill.

    Without `bank_target`, the process cannot call the bank, so it cannot repair the history.
    """
    grpc_port, admin_port, unused_port = free_ports(3)
    settings = env.settings.model_copy(
        update={
            "analytics_grpc_listen": f"{HOST}:{grpc_port}",
            "analytics_admin_listen": f"{HOST}:{admin_port}",
            "bank_grpc_target": bank_target or f"{HOST}:{unused_port}",
        },
    )
    environment = {
        name.upper(): json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in settings.model_dump(mode="json", exclude_none=True).items()
    }
    environment["CLICKHOUSE_DSN"] = clickhouse_dsn or env.settings.clickhouse_dsn.get_secret_value()
    ready = probes.http(f"http://{HOST}:{admin_port}/health/ready")
    command, ports = module("subgraphs.analytics.service", **environment), {"grpc": grpc_port, "admin": admin_port}
    return Child(Process(name="analytics", command=command, ready=ready, ports=ports))


async def until_group_size(env: AnalyticsEnvironment, count: int, within: float = 15.0) -> None:
    """Wait until the group is stable and has `count` members."""

    async def members() -> tuple[str, int]:
        async with _admin(env) as admin:
            (response,) = await admin.describe_consumer_groups([main.NAME])
            ((_, _, state, _, _, found, *_),) = response.groups
            return state, len(found)

    async def is_reached() -> bool:
        return await members() == ("Stable", count)

    try:
        await until(is_reached, within=within)
    except AssertionError:
        raise AssertionError(f"state and size of the group: {await members()}, not Stable and {count}") from None


async def count_messages(env: AnalyticsEnvironment) -> int:
    """Return the number of messages that were published to the topic."""
    async with AIOKafkaConsumer(bootstrap_servers=env.kafka.bootstrap_servers) as reader:
        offsets: dict[TopicPartition, int] = await reader.end_offsets(
            [TopicPartition(OPERATIONS_TOPIC, part) for part in PARTITIONS]
        )
        return sum(offsets.values())


async def count_dropped_messages(env: AnalyticsEnvironment) -> int:
    """Return the number of messages that the broker has dropped."""
    async with AIOKafkaConsumer(bootstrap_servers=env.kafka.bootstrap_servers) as reader:
        offsets: dict[TopicPartition, int] = await reader.beginning_offsets(
            [TopicPartition(OPERATIONS_TOPIC, part) for part in PARTITIONS]
        )
        return sum(offsets.values())


async def list_topics(env: AnalyticsEnvironment) -> list[str]:
    """Return the names of all topics."""
    async with _admin(env) as admin:
        names: list[str] = await admin.list_topics()
        return names


@asynccontextmanager
async def _admin(env: AnalyticsEnvironment) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=env.kafka.bootstrap_servers)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
