"""Apache Kafka itself, one node in KRaft mode: it survives `kill -9` with its data and balances groups."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from stack import probes
from stack.ports import HOST
from stack.process import Child, Command, OrphanReaper, Output, Process
from tests.waiting import until

POM: Final = Path(__file__).with_name("pom.xml")
_CLUSTER: Final = "wallet-tests-cluster-1"
_FETCH_SECONDS: Final = 100
_JAVA: Final = ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LOGGED: Final = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
_INTERNAL: Final = "__"
_PARTITIONS: Final = 4

# One node that is quick: to start, to be missed, to give a lost member's partitions to others.
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
    # After a kill the controller waits this long for the broker that was, before it lets the new one in.
    "broker.session.timeout.ms": 1_000,
    "broker.heartbeat.interval.ms": 250,
}


class Missing(Exception):
    """Kafka cannot be had on this machine; the message is for a person and says why."""


class ApacheKafka(Child):
    """A one-node Kafka on `127.0.0.1:port`. Its log is `data`, which outlives it."""

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
        """Describes the broker; nothing runs yet.

        Args:
            jars: the folder that `fetched` returned.
            data: its own folder, empty or as an earlier one of the same ports left it.
        """
        self.bootstrap_servers = f"{HOST}:{port}"
        self._jars = jars
        self._data = data
        self._listens = probes.tcp(HOST, port)
        self._settings = _SETTINGS | {
            "log.dirs": data / "log",
            "listeners": f"BROKER://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"BROKER://{HOST}:{port}",
            "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        }
        process = Process(
            name="apache-kafka",
            command=self._command,
            ready=self._answers,
            ports={"broker": port, "controller": controller_port},
        )
        super().__init__(process, output=output, reaper=reaper)

    async def clean(self) -> None:
        """Deletes every topic, and with it every group's place there.

        They are gone from the broker itself when this returns, not from its controller alone. A topic made of the same
        name before that could lose the places of its own readers when the broker comes to delete those of the old one.
        """
        async with self._admin() as admin:

            async def is_empty() -> bool:
                topics = [topic for topic in await admin.list_topics() if not topic.startswith(_INTERNAL)]
                if topics:
                    await admin.delete_topics(topics)
                return not topics

            await until(is_empty, every=0.01)

    async def create(self, *topics: str) -> None:
        """Makes topics as the first use of them would, with four partitions; readers need not notice them later."""
        async with self._admin() as admin:
            await admin.create_topics([NewTopic(topic, _PARTITIONS, replication_factor=1) for topic in topics])

            async def are_there() -> bool:
                return set(topics) <= set(await admin.list_topics())

            await until(are_there, every=0.01)

    async def _command(self) -> Command:
        file = self._data / "server.properties"
        if not file.exists():
            self._data.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
            await self._formatted(file)
        return self._java("kafka.Kafka", str(file))

    async def _formatted(self, file: Path) -> None:
        async def command() -> Command:
            return self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(file))

        await Child(Process(name="kafka-format", command=command)).start()  # and ended, when this returns

    def _java(self, main: str, *arguments: str) -> Command:
        argv = (*_JAVA, _LOGGED, "-cp", f"{self._jars}/*", main, *arguments)
        return Command(argv, dict(os.environ), self._data)

    async def _answers(self) -> bool:
        """Whether the broker has been let in by its controller; until then it listens and leads nothing."""
        if not await self._listens():
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


def fetched() -> Path:
    """The folder with Kafka's jars. Maven fetches what `pom.xml` names, once for each user of this machine.

    Raises:
        Missing: there is no Java or no Maven, or Maven did not bring it.
    """
    _require("java")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wallet-tests"
    jars = caches / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if jars.exists():
        return jars
    _require("mvn")
    caches.mkdir(parents=True, exist_ok=True)
    with (caches / "kafka.lock").open("w") as lock, tempfile.TemporaryDirectory(dir=caches) as unfinished:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of the same run may be at it
        if not jars.exists():
            _maven("-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}/jars")
            (Path(unfinished) / "jars").rename(jars)
    return jars


def _require(tool: str) -> None:
    if shutil.which(tool) is None:
        raise Missing(f"there is no `{tool}` on the path")


def _maven(*arguments: str) -> None:
    try:
        subprocess.run(
            ["mvn", "-q", "-B", "-DincludeScope=runtime", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"Maven did not bring it in {_FETCH_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        raise Missing(f"Maven did not bring it:\n{error.stdout[:2_000]}") from None
