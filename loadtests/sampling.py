"""Samples during a run: the sum of all balances, metrics of the services, and the memory of all processes."""

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import asyncpg
import httpx
import orjson

from kit.runtime import process
from loadtests.history import rows
from loadtests.history.calls import History
from loadtests.target import Target

FILE: Final = "samples.jsonl"

_INTERVAL_SECONDS: Final = 0.5
_TIMEOUT_SECONDS: Final = 2.0
DATABASE_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Errors of a database that is unavailable or refuses the connection."""
_METRIC_LINE: Final = re.compile(r"^(wallet_\w+?)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)
_METRICS: Final[Mapping[str, Mapping[str, str]]] = {
    "bank": {
        "wallet_bank_batch_size_sum": "commands",
        "wallet_bank_batch_size_count": "batches",
        "wallet_bank_outbox_backlog": "backlog",
    },
    "analytics": {"wallet_analytics_consumer_lag": "lag"},
}
"""Names in a sample by metric, for each service. In tests, services are forks of one process, so each of them has the
metrics of all services, and those of the others are zero.
"""
_OF_ALL_REPLICAS: Final = "backlog"
"""Each replica reports the same value. The other values are those of one replica, and are added up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Metrics and memory at one time.

    Attributes:
        at: time on the monotonic clock.
        metrics: the metrics in `_METRICS` that could be read.
        processes: private resident bytes of each process of an embedded stack. The key is the component and the process
            id: `postgres 4711`.
    """

    at: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    processes: Mapping[str, int] = field(default_factory=dict)

    @property
    def memory(self) -> Mapping[str, int]:
        """Return the private resident bytes of each component, with its child processes."""
        components: Counter[str] = Counter()
        for process_name, used in self.processes.items():
            components[component_name(process_name)] += used
        return components


def component_name(process_name: str) -> str:
    """Return the component in the name of a process: `postgres` for `postgres 4711`."""
    return process_name.rpartition(" ")[0]


@asynccontextmanager
async def record_samples(target: Target, folder: Path, history: History) -> AsyncIterator[None]:
    """Write samples to the folder and balance snapshots to the history, while the block runs."""
    async with (
        process.background_task(_record_snapshots(target, history), "snapshots"),
        process.background_task(_write_samples(target, folder), "samples"),
    ):
        yield


def read_samples(folder: Path) -> list[Sample]:
    """Return the samples in the folder of a run, in order of time."""
    file = folder / FILE
    return [Sample(**orjson.loads(line)) for line in file.read_bytes().splitlines()] if file.exists() else []


async def _record_snapshots(target: Target, history: History) -> None:
    async def record() -> None:
        connection = await asyncpg.connect(target.ledger, timeout=_TIMEOUT_SECONDS)
        try:
            while True:
                history.record_snapshot(await rows.sum_balance_changes(connection))
                await asyncio.sleep(_INTERVAL_SECONDS)
        finally:
            await connection.close(timeout=_TIMEOUT_SECONDS)

    while True:
        with suppress(*DATABASE_ERRORS):
            await (record() if target.ledger else asyncio.Event().wait())
        await asyncio.sleep(_INTERVAL_SECONDS)


async def _write_samples(target: Target, folder: Path) -> None:
    with (folder / FILE).open("ab", buffering=0) as file:
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
            while True:
                responses = await asyncio.gather(*(_read_metrics(http, *each) for each in target.admins.items()))
                metrics: dict[str, float] = {}
                for name, value in (item for each in responses for item in each.items()):
                    earlier = metrics.get(name, 0.0)
                    metrics[name] = max(earlier, value) if name == _OF_ALL_REPLICAS else earlier + value
                current = Sample(at=time.monotonic(), metrics=metrics, processes=_read_memory(target.data))
                file.write(orjson.dumps(asdict(current)) + b"\n")
                await asyncio.sleep(2 * _INTERVAL_SECONDS)


async def _read_metrics(http: httpx.AsyncClient, process_name: str, admin: str) -> dict[str, float]:
    """Return the metrics of a service, or of a replica with a number, such as `bank-2`."""
    names = _METRICS.get(process_name.partition("-")[0], {})
    try:
        text = (await http.get(f"{admin}/metrics")).text
    except httpx.HTTPError:
        return {}
    return {names[name]: float(value) for name, value in _METRIC_LINE.findall(text) if name in names}


def _read_memory(data: Path | None) -> dict[str, int]:
    """Return the private resident bytes of the processes in the stack's process list and of their descendants."""
    try:
        table = json.loads((data / "run.json").read_text()) if data else {}
    except (OSError, ValueError):
        return {}
    parents = dict(_list_parents())
    return {
        f"{name} {pid}": _private_bytes(pid)
        for name, each in table.items()
        if each["pid"]
        for pid in _descendants(each["pid"], parents)
    }


def _list_parents() -> Iterator[tuple[int, int]]:
    """Yield the id and the parent's id of every process."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield int(entry.parent.name), int(entry.read_text().rpartition(")")[2].split()[1])


def _descendants(pid: int, parents: Mapping[int, int]) -> list[int]:
    """Return the process with all its descendants."""
    return [pid, *(each for child, parent in parents.items() if parent == pid for each in _descendants(child, parents))]


def _private_bytes(pid: int) -> int:
    """Return the resident bytes without shared pages: these would be counted once for each process of PostgreSQL."""
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except OSError:
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
