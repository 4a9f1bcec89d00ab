"""What is looked at during a run: the sum of all balances, and what the services say of themselves."""

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
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

_EVERY_SECONDS: Final = 0.5
_TIMEOUT_SECONDS: Final = 2.0
_AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_SAMPLE: Final = re.compile(r"^(wallet_\w+?)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)
_WATCHED: Final = {
    "wallet_bank_batch_size_sum": "commands",
    "wallet_bank_batch_size_count": "batches",
    "wallet_bank_outbox_backlog": "backlog",
    "wallet_analytics_consumer_lag": "lag",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A moment on the monotonic clock.

    Attributes:
        metrics: those of `_WATCHED` that could be read.
        processes: resident bytes of each process of an embedded stack, as `postgres 4711`: its part's name, and its id.
    """

    at: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    processes: Mapping[str, int] = field(default_factory=dict)

    @property
    def memory(self) -> Mapping[str, int]:
        """Resident bytes of each part, with all that it started."""
        parts: Counter[str] = Counter()
        for name, used in self.processes.items():
            parts[part(name)] += used
        return parts


def part(process: str) -> str:
    """The part's name in that of a process."""
    return process.rpartition(" ")[0]


@asynccontextmanager
async def watched(target: Target, folder: Path, history: History) -> AsyncIterator[None]:
    """Writes samples into the folder, and the ledger's sums into the history, for as long as the body."""
    async with (
        process.background_task(_sums(target, history), "sums"),
        process.background_task(_samples(target, folder), "samples"),
    ):
        yield


def read(folder: Path) -> list[Sample]:
    """What was sampled, in order."""
    file = folder / FILE
    return [Sample(**orjson.loads(line)) for line in file.read_bytes().splitlines()] if file.exists() else []


async def _sums(target: Target, history: History) -> None:
    async def sums() -> None:
        connection = await asyncpg.connect(target.ledger, timeout=_TIMEOUT_SECONDS)
        try:
            while True:
                history.saw(await rows.gained(connection))
                await asyncio.sleep(_EVERY_SECONDS)
        finally:
            await connection.close(timeout=_TIMEOUT_SECONDS)

    await _again_and_again(sums if target.ledger else asyncio.Event().wait)


async def _again_and_again(work: Callable[[], Awaitable[object]]) -> None:
    while True:
        with suppress(*_AWAY):
            await work()
        await asyncio.sleep(_EVERY_SECONDS)


async def _samples(target: Target, folder: Path) -> None:
    with (folder / FILE).open("ab", buffering=0) as file:
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as http:
            while True:
                found = await asyncio.gather(*(_metrics(http, admin) for admin in target.admins.values()))
                metrics = {name: value for each in found for name, value in each.items()}
                sample = Sample(at=time.monotonic(), metrics=metrics, processes=_memory(target.data))
                file.write(orjson.dumps(asdict(sample)) + b"\n")
                await asyncio.sleep(2 * _EVERY_SECONDS)


async def _metrics(http: httpx.AsyncClient, admin: str) -> dict[str, float]:
    try:
        text = (await http.get(f"{admin}/metrics")).text
    except httpx.HTTPError:
        return {}
    return {_WATCHED[name]: float(value) for name, value in _SAMPLE.findall(text) if name in _WATCHED}


def _memory(data: Path | None) -> dict[str, int]:
    """By the list that a stack keeps of its processes."""
    try:
        table = json.loads((data / "run.json").read_text()) if data else {}
    except (OSError, ValueError):
        return {}
    tree = dict(_parents())
    return {
        f"{name} {pid}": _resident(pid)
        for name, each in table.items()
        if each["pid"]
        for pid in _family(each["pid"], tree)
    }


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield int(entry.parent.name), int(entry.read_text().rpartition(")")[2].split()[1])


def _family(pid: int, parents: Mapping[int, int]) -> list[int]:
    return [pid, *(each for child, parent in parents.items() if parent == pid for each in _family(child, parents))]


def _resident(pid: int) -> int:
    """What is the process's own: pages that PostgreSQL's processes share would count once for each of them."""
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except OSError:
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
