"""Kafka and ClickHouse as child processes. They are ready inside `async with`, and can be stopped and started again."""

from pathlib import Path

from stack import probes
from stack.process import Child, OrphanReaper, Output, Process, module


class Kafka(Child):
    """One Kafka broker, librdkafka's mock cluster, on `127.0.0.1:port`. It is empty after every start."""

    def __init__(self, port: int, *, output: Output | None = None, reaper: OrphanReaper | None = None) -> None:
        """Describe the process without starting it."""
        self.bootstrap_servers = f"127.0.0.1:{port}"
        process = Process(
            name="kafka",
            command=module("stack.engines.kafka", "--port", str(port)),
            ready=probes.tcp("127.0.0.1", port),
            ports={"broker": port},
        )
        super().__init__(process, output=output, reaper=reaper)


class ClickHouse(Child):
    """ClickHouse's HTTP interface on `127.0.0.1:port`; its data stay in the folder `data`."""

    def __init__(
        self, data: Path, port: int, *, output: Output | None = None, reaper: OrphanReaper | None = None
    ) -> None:
        """Describe the process without starting it."""
        self.url = f"http://127.0.0.1:{port}"
        process = Process(
            name="clickhouse",
            command=module("stack.engines.clickhouse", "--port", str(port), "--data", str(data.absolute()), TZ="UTC"),
            ready=probes.http(f"{self.url}/ping"),
            ports={"http": port},
            urls={"http": self.url},
        )
        super().__init__(process, output=output, reaper=reaper)

    def dsn(self, database: str) -> str:
        """Return the DSN of `database` for clickhouse-connect. The database need not exist yet."""
        return f"{self.url}/{database}"
