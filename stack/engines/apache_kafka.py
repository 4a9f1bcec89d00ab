"""Apache Kafka as a child process: one node in KRaft mode, for `make up KAFKA=apache`, tests and benchmarks.

Unlike the embedded broker it keeps its data after `kill -9`, and distributes a topic's partitions among the members of
a consumer group.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from stack import probes
from stack.ports import HOST
from stack.process import Child, Command, OrphanReaper, Output, Process

POM: Final = Path(__file__).with_name("apache_kafka.pom.xml")
_CLUSTER: Final = "wallet-local-cluster-1"
_JAVA: Final = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LOG_LEVEL: Final = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
_INTERNAL_TOPIC_PREFIX: Final = "__"
_PARTITIONS: Final = 4
_ADMIN_TIMEOUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.01

# Short time-outs: the node starts fast, and a group reassigns the partitions of a lost member fast.
_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "BROKER",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "true",
    "num.partitions": _PARTITIONS,
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 500,
    # After a kill the controller waits this long for the old broker before it accepts the new one.
    "broker.session.timeout.ms": 1_000,
    "broker.heartbeat.interval.ms": 250,
}


class ApacheKafka(Child):
    """Kafka with one node on `127.0.0.1:port`. Its log stays in the folder `data`."""

    def __init__(
        self,
        jars: Path,
        data: Path,
        port: int,
        controller_port: int,
        *,
        output: Output | None = None,
        reaper: OrphanReaper | None = None,
    ) -> None:
        """Describe the broker without starting it.

        Args:
            jars: folder that `fetch_jars(POM)` returns.
            data: an empty folder, or the data of an earlier broker.
            port: port of the broker.
            controller_port: port of its controller.
            output: receives each line that the broker prints.
            reaper: ends the broker if this process dies; without it, the broker gets a reaper of its own.
        """
        self.bootstrap_servers = f"{HOST}:{port}"
        self._jars = jars
        self._data = data
        self._accepts_connections = probes.tcp(HOST, port)
        self._settings = _SETTINGS | {
            "log.dirs": data / "log",
            "listeners": f"BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"BROKER://{HOST}:{port}",
            "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        }
        process = Process(
            name="kafka",
            command=self._command,
            ready=self._is_ready,
            ports={"broker": port, "controller": controller_port},
        )
        super().__init__(process, output=output, reaper=reaper)

    async def clean(self) -> None:
        """Delete every topic together with the committed offsets of its groups.

        The controller deletes the topics first, the broker later. The method returns only after the broker has deleted
        them. Otherwise a new topic with the same name could lose the offsets of its readers when the broker deletes the
        old offsets.

        Raises:
            TimeoutError: the broker still has a topic after ten seconds.
        """
        async with self._admin() as admin:

            async def is_empty() -> bool:
                topics = [topic for topic in await admin.list_topics() if not topic.startswith(_INTERNAL_TOPIC_PREFIX)]
                if topics:
                    await admin.delete_topics(topics)
                return not topics

            await _wait_until(is_empty)

    async def create(self, *topics: str) -> None:
        """Create topics with four partitions, the default of this broker. Readers then find the topics at once.

        Raises:
            TimeoutError: the broker does not list them after ten seconds.
        """
        async with self._admin() as admin:
            await admin.create_topics([NewTopic(topic, _PARTITIONS, replication_factor=1) for topic in topics])

            async def has_topics() -> bool:
                return set(topics) <= set(await admin.list_topics())

            await _wait_until(has_topics)

    async def _command(self) -> Command:
        file = self._data / "server.properties"
        self._data.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
        if not (self._data / "log" / "meta.properties").exists():
            await self._format(file)
        return self._java("kafka.Kafka", str(file))

    async def _format(self, file: Path) -> None:
        async def command() -> Command:
            return self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(file))

        await Child(Process(name="kafka-format", command=command)).start()  # returns when the job has ended

    def _java(self, main: str, *arguments: str) -> Command:
        argv = (*_JAVA, _LOG_LEVEL, "-cp", f"{self._jars}/*", main, *arguments)
        return Command(argv, dict(os.environ), self._data)

    async def _is_ready(self) -> bool:
        """Return whether the controller has accepted the broker. Before that, the broker leads no partition."""
        if not await self._accepts_connections():
            return False
        try:
            async with self._admin() as admin:
                return bool((await admin.describe_cluster())["brokers"])
        except KafkaError:
            return False

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=5_000)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()


async def _wait_until(probe: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_ADMIN_TIMEOUT_SECONDS):
        while not await probe():  # noqa: ASYNC110  the broker has no event to wait for
            await asyncio.sleep(_POLL_SECONDS)
