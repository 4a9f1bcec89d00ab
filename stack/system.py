"""The whole system as a context manager, for `make up`, tests, the demo and benchmarks."""

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
from stack.plan import build_plan
from stack.ports import Ports, check_free
from stack.process import OrphanReaper, Process
from stack.supervisor import Supervisor

Planner = Callable[[Ports, Path], Sequence[Process]]
REAPER_TIMEOUT = 15.0  # seconds; longer than the reaper needs to end orphans


class LockedError(Exception):
    """Another stack uses the same data folder. The message says which process."""


@dataclass(frozen=True, slots=True)
class System:
    """The system's ports, data folder and supervisor, which stops and starts single processes."""

    ports: Ports
    data: Path
    supervisor: Supervisor

    @property
    def url(self) -> str:
        """Base URL of the gateway."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    def pid(self, name: str) -> int:
        """Return the process id of `name`, for tests that kill it.

        Raises:
            LookupError: the process is not running.
        """
        if (pid := self.supervisor.children[name].pid) is None:
            raise LookupError(f"{name} is not running")
        return pid


@contextmanager
def prepare_system(
    ports: Ports, data: Path, *, console: Console | None = None, planner: Planner | None = None
) -> Iterator[System]:
    """Lock the data folder and check the ports; the caller starts the supervisor.

    Args:
        ports: ports of all processes.
        data: folder of all files, created if missing; used by one system at a time.
        console: receives progress and output; default: log files in `data`/logs only.
        planner: returns the plan, which is the list of processes to run; default: the full system.

    Raises:
        PortError: a port is in use.
        LockedError: another system uses `data`.
    """
    data = data.absolute()
    with lock_data_folder(data) as lock, contextlib.closing(console or Console(data / "logs", None)) as output:
        plan = (planner or full_system_plan)(ports, data)
        check_free({f"{p.name} ({use})": port for p in plan for use, port in p.ports.items()})
        with contextlib.closing(OrphanReaper(keep_open=(lock,))) as reaper:
            run_file = data / "run.json"
            supervisor = Supervisor(plan, output, reaper, changed=lambda: _write_run_file(run_file, supervisor))
            try:
                yield System(ports, data, supervisor)
            finally:
                run_file.unlink(missing_ok=True)


@asynccontextmanager
async def run_system(
    ports: Ports, data: Path, *, console: Console | None = None, planner: Planner | None = None
) -> AsyncIterator[System]:
    """Yield the system of `prepare_system`: ready inside the block, and ended after it even if this process is killed.

    Raises:
        PortError: a port is in use.
        LockedError: a system runs on `data` already.
        StartError: a process could not be started; the others are stopped again.
    """
    with prepare_system(ports, data, console=console, planner=planner) as system:
        try:
            await system.supervisor.start()
            yield system
        finally:
            await system.supervisor.stop()


def full_system_plan(
    ports: Ports, data: Path, *, tls: bool = False, kafka_jars: Path | None = None
) -> tuple[Process, ...]:
    """Return the full plan, with the PostgreSQL cluster of `data`; arguments as in `build_plan`."""
    return build_plan(ports, data, Postgres(data, ports.postgres), tls=tls, kafka_jars=kafka_jars)


@contextmanager
def lock_data_folder(data: Path) -> Iterator[int]:
    """Lock `data` for one system and yield the descriptor that holds the lock.

    After kill -9 of a system, its orphan reaper keeps the lock until the orphans have ended; this call waits for that.

    Raises:
        LockedError: a running system holds the lock.
    """
    data.mkdir(
        mode=0o711, parents=True, exist_ok=True
    )  # lets the user `nobody` reach its cluster below, but not list this folder
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + REAPER_TIMEOUT
        while not _try_lock(descriptor):
            holder = os.pread(descriptor, 20, 0).decode().strip()
            if not holder or _is_alive(int(holder)) or time.monotonic() > deadline:
                raise LockedError(
                    f"a stack already uses {data} (process {holder or 'unknown'}): stop it, or use another DATA"
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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write_run_file(path: Path, supervisor: Supervisor) -> None:
    """Write pid, ports and addresses of each process that is not a job, for fault tests and people."""
    table = {
        name: {"pid": child.pid, "ports": dict(child.process.ports), "urls": dict(child.process.urls)}
        for name, child in supervisor.children.items()
        if child.process.ready
    }
    write_private_file(path, json.dumps(table, indent=2))
