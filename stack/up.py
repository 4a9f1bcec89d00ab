"""`make up`: run the whole system in one terminal until Ctrl-C."""

import asyncio
import contextlib
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from provisioning.seed import CUSTOMERS, STAFF
from stack.console import Console, Lines
from stack.plan import PASSWORD
from stack.ports import DEFAULT, HOST, PortError, Ports
from stack.process import Child, StartError
from stack.running import registered
from stack.system import LockedError, Planner, System, prepare_system

DEFAULT_DATA = Path(".wallet")
FAILED = 1
REFUSED = 2


def up(
    port: int = DEFAULT,
    data: Path = DEFAULT_DATA,
    *,
    lines: Lines = Lines.WARNINGS,
    planner: Planner | None = None,
) -> int:
    """Run the system until SIGINT, SIGTERM or SIGHUP, then stop it; a second signal kills all processes.

    Args:
        port: port of the gateway.
        data: data folder.
        lines: lines of the processes that are shown; all of them are in the log files.
        planner: see `prepare_system`.

    Returns:
        Exit code: 0 stopped by a signal, 1 a process could not be started, 2 a port or the data folder is in use.
    """
    try:
        console = Console(data / "logs", lines=lines)
        with (
            prepare_system(Ports.derive(port), data, console=console, planner=planner) as system,
            registered(data, port),
        ):
            asyncio.run(_serve(system, console, data))
    except (PortError, LockedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return REFUSED
    except StartError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    return 0


async def _serve(system: System, console: Console, data: Path) -> None:
    supervisor, started = system.supervisor, time.monotonic()
    work = asyncio.create_task(supervisor.start())
    stop_requested = asyncio.Event()

    def on_signal() -> None:
        if stop_requested.is_set():
            supervisor.kill()
        else:
            console.show("\nstopping; press Ctrl-C again to kill")
        stop_requested.set()
        work.cancel()

    loop = asyncio.get_running_loop()
    stop_signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in stop_signals:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # started with nohup: SIGHUP stays ignored
        loop.add_signal_handler(number, on_signal)
    try:
        await work
        console.show(welcome_text(system, data, time.monotonic() - started))
        await stop_requested.wait()
    except asyncio.CancelledError:
        if not stop_requested.is_set():
            raise
    finally:
        await supervisor.stop()
        signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)  # a late Ctrl-C must not change the exit code


def welcome_text(system: System, data: Path, seconds: float) -> str:
    """Return the message shown when everything runs: addresses, users, and a first request to try."""
    chosen = "" if data == DEFAULT_DATA else f" DATA={shlex.quote(str(data))}"
    children = system.supervisor.children
    admins = [f"{n} {c.process.urls['admin']}" for n, c in children.items() if "admin" in c.process.urls]
    databases = ", ".join(
        f"{name} {HOST}:{next(iter(children[name].process.ports.values()))}"
        for name in ("postgres", "kafka", "clickhouse")
        if name in children
    )
    acquirer = next((c.process.urls["test cards"] for c in children.values() if "test cards" in c.process.urls), None)
    memory = memory_mib(child.pid for child in children.values() if child.pid is not None)
    return f"""
The wallet is up after {seconds:.1f} s{f" and uses {memory:,} MiB of memory" if memory else ""}.
Ctrl-C stops it, and so does make down{chosen}.

  GraphiQL   {system.url}/graphql
  REST       {system.url}/docs
  cards      {acquirer or "none"}   (test cards of the sandbox acquirer, which moves no money)
  health     {system.url}/health/ready
  admin      {", ".join(admins) or "none"}   (/health/ready, /metrics)
  databases  {databases or "none"}
  kafka      {_describe_kafka(children["kafka"]) if "kafka" in children else "none"}
  users      {", ".join((*CUSTOMERS, *STAFF))}   (password: {_password(data)})
  data       {data}
  logs       {data / "logs"}/*.log   (make logs{chosen}; warnings appear here)

Alice sends Bob 10 roubles. Repeat the request with the same key: the money moves once.

  curl -sS -X POST {system.url}/accounts/{CUSTOMERS["alice"].account}/transfers \\
    -H "Authorization: Bearer $(make -s token{chosen})" \\
    -H "Idempotency-Key: {uuid.uuid4()}" \\
    -H "Content-Type: application/json" \\
    -d '{{"recipientId": "{CUSTOMERS["bob"].account}", "amount": "10.00", "currency": "RUB"}}'

make token prints Alice's access token; make token AS=bob that of Bob.
"""


def _describe_kafka(kafka: Child) -> str:
    """Say which broker runs. Only Apache Kafka has a controller."""
    if "controller" in kafka.process.ports:
        return "Apache Kafka, which keeps its data"
    return "a mock, which is empty after each start and gives Java clients no metadata (make up KAFKA=apache)"


def _password(data: Path) -> str:
    """Return the password of the seeded users, which is random in each data folder."""
    try:
        return (data / "keys" / f"{PASSWORD}.secret").read_text()
    except OSError:
        return "none"


def memory_mib(pids: Iterable[int]) -> int | None:
    """Return the memory of these processes and of those that they have started, in MiB; None where /proc is missing.

    Memory that several processes share counts once (the proportional set size of Linux).

    Args:
        pids: leaders of the processes' sessions.
    """
    sessions, total = set(pids), 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # the process has ended, or belongs to another user
            session = int(status.read_text().rpartition(")")[2].split()[3])
            if session in sessions:
                rollup = status.with_name("smaps_rollup").read_text()
                # A process that ends at this moment may have an empty file.
                total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total // 1024 or None
