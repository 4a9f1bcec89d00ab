"""The whole system, running: one context manager for `make up`, the tests, the demo and the benchmarks."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.runtime.files import write_private_file
from stack.console import Console
from stack.engines.postgres import Postgres
from stack.plan import full_plan
from stack.ports import Ports, check_free
from stack.process import Leash, Process
from stack.supervisor import Supervisor

Planner = Callable[[Ports, Path], Sequence[Process]]
LEASH_TIMEOUT = 15.0  # seconds; longer than a leash needs to end what a killed supervisor left


class LockedError(Exception):
    """Another stack runs on the same data folder; the message is for a person."""


@dataclass(frozen=True, slots=True)
class System:
    """What runs and how to reach it. `supervisor` stops, kills and brings back single processes."""

    ports: Ports
    data: Path
    supervisor: Supervisor

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    def pid(self, name: str) -> int:
        """The process id of `name`, for a test that kills it.

        Raises:
            LookupError: it is not running now.
        """
        if (pid := self.supervisor.children[name].pid) is None:
            raise LookupError(f"{name} is not running")
        return pid


@contextmanager
def prepared(
    ports: Ports, data: Path, *, console: Console | None = None, planner: Planner | None = None
) -> Iterator[System]:
    """The system with `data` locked and every port found free, and nothing started yet; for who starts it himself.

    Args:
        ports: of all parts.
        data: made if missing; one system at a time.
        console: where progress and output go; by default to `data`/logs only.
        planner: another table of processes than the full one.

    Raises:
        PortError: a port is in use.
        LockedError: a system runs on `data` already.
    """
    data = data.absolute()
    with locked(data) as lock, contextlib.closing(console or Console(data / "logs", None)) as output:
        plan = (planner or plan_of)(ports, data)
        check_free({f"{p.name} ({use})": port for p in plan for use, port in p.ports.items()})
        with contextlib.closing(Leash(keep_open=(lock,))) as leash:
            record = data / "run.json"
            supervisor = Supervisor(plan, output, leash, changed=lambda: _record(record, supervisor))
            try:
                yield System(ports, data, supervisor)
            finally:
                record.unlink(missing_ok=True)


@asynccontextmanager
async def running(
    ports: Ports, data: Path, *, console: Console | None = None, planner: Planner | None = None
) -> AsyncIterator[System]:
    """The system of `prepared`: ready inside the block and gone after it, even if this process is killed.

    Raises:
        PortError: a port is in use.
        LockedError: a system runs on `data` already.
        StartError: something could not be started; what was started is stopped again.
    """
    with prepared(ports, data, console=console, planner=planner) as system:
        try:
            await system.supervisor.start()
            yield system
        finally:
            await system.supervisor.stop()


def plan_of(ports: Ports, data: Path, *, tls: bool = False) -> tuple[Process, ...]:
    """The full plan, with the PostgreSQL cluster that belongs to `data`, by mutual TLS if it should be."""
    return full_plan(ports, data, Postgres(data, ports.postgres), tls=tls)


@contextmanager
def locked(data: Path) -> Iterator[int]:
    """Holds `data` for one system and yields the descriptor that holds it.

    After kill -9 the leash holds on until it has ended what was left; that is waited for.

    Raises:
        LockedError: a living system has it.
    """
    data.mkdir(mode=0o711, parents=True, exist_ok=True)  # nobody's cluster has to be reachable, and nothing else
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LEASH_TIMEOUT
        while not _try_lock(descriptor):
            holder = os.pread(descriptor, 20, 0).decode().strip()
            if not holder or _alive(int(holder)) or time.monotonic() > deadline:
                raise LockedError(
                    f"a stack already runs on {data} (process {holder or 'unknown'}): stop it, or use another DATA"
                )
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _record(path: Path, supervisor: Supervisor) -> None:
    """Writes who runs now where a fault test, or a curious person, finds it."""
    table = {
        name: {"pid": child.pid, "ports": dict(child.process.ports), "urls": dict(child.process.urls)}
        for name, child in supervisor.children.items()
        if child.process.ready
    }
    write_private_file(path, json.dumps(table, indent=2))
