"""Kafka and ClickHouse as children: ready inside `async with`, startable and stoppable at will."""

from pathlib import Path

from stack import probes
from stack.process import Child, Leash, Output, Process, module


class Kafka(Child):
    """A one-broker Kafka, empty at every start, on `127.0.0.1:port` at every start."""

    def __init__(self, port: int, *, output: Output | None = None, leash: Leash | None = None) -> None:
        """Describes the broker; nothing runs yet."""
        self.bootstrap_servers = f"127.0.0.1:{port}"
        process = Process(
            name="kafka",
            command=module("stack.engines.kafka", "--port", str(port)),
            ready=probes.tcp("127.0.0.1", port),
            ports={"broker": port},
        )
        super().__init__(process, output=output, leash=leash)


class ClickHouse(Child):
    """ClickHouse's HTTP interface on `127.0.0.1:port`; its store is `data` and outlives it."""

    def __init__(self, data: Path, port: int, *, output: Output | None = None, leash: Leash | None = None) -> None:
        """Describes the server; nothing runs yet."""
        self.url = f"http://127.0.0.1:{port}"
        process = Process(
            name="clickhouse",
            command=module("stack.engines.clickhouse", "--port", str(port), "--data", str(data.absolute()), TZ="UTC"),
            ready=probes.http(f"{self.url}/ping"),
            ports={"http": port},
            urls={"http": self.url},
        )
        super().__init__(process, output=output, leash=leash)

    def dsn(self, database: str) -> str:
        """The address of `database` as clickhouse-connect takes it. The database need not exist yet."""
        return f"{self.url}/{database}"
